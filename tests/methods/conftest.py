from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from feature_networks import Pair, make_pair


@pytest.fixture(scope="session")
def trained_pair() -> Pair:
    return make_pair()


@pytest.fixture
def pair(trained_pair: Pair) -> Pair:
    """A fresh copy of the student beside the same teacher."""
    return Pair(copy.deepcopy(trained_pair.student), trained_pair.teacher, trained_pair.split)


@pytest.fixture(autouse=True)
def _own_randomness() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
