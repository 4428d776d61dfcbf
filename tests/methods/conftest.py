from __future__ import annotations

import copy

import pytest
from feature_networks import Pair, make_pair


@pytest.fixture(scope="session")
def trained_pair() -> Pair:
    return make_pair()


@pytest.fixture
def pair(trained_pair: Pair) -> Pair:
    """A fresh copy of the student beside the same teacher."""
    return Pair(copy.deepcopy(trained_pair.student), trained_pair.teacher, trained_pair.split)
