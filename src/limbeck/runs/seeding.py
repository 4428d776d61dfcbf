"""Seeding torch's own generators for a while, and putting them back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from limbeck.data.random import derive


@contextmanager
def seeded(seed: int, stream: str) -> Iterator[None]:
    """Torch's global generators follow (seed, stream) inside, and go on as before afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(derive(seed, stream))
        yield
