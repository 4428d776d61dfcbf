"""The contract of a teacher: a batch in, a record out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from limbeck.data.base import Record, Split


class Teacher(Protocol):
    """Anything that says something about a batch: a live model, stored outputs, several of them.

    Attributes:
        name: what the user called it.
        classes: width of its logits, None before it is known.
        taps: module paths that it records besides the logits.
        live: whether it can be run on inputs that it has not seen.
    """

    name: str
    taps: Sequence[str]
    live: bool

    def __call__(self, batch: Record) -> Record:
        """The outputs for `batch`: `logits` of shape (B, classes) and each tap by its path."""

    def tap(self, paths: Sequence[str]) -> None:
        """Record these module paths too; an `InputError` where that is impossible."""

    def modules(self) -> list[nn.Module]:
        """The modules that must move to the device."""

    def module(self, path: str) -> nn.Module:
        """The part of the model at `path`; an `InputError` where there is no model."""

    def survey(self, batch: Record) -> dict[str, tuple[int, ...]]:
        """Every path that can be tapped, with the shape of what it gives for one sample."""

    def outputs(self, split: Split) -> Tensor | None:
        """Logits of the clean samples of a whole split, on the CPU; None where unknown."""


def mean_logits(logits: list[Tensor]) -> Tensor:
    """Log of the mean of the teachers' probabilities: logits of the plain ensemble."""
    stacked = torch.stack([part.float().log_softmax(-1) for part in logits])
    return stacked.logsumexp(0) - math.log(len(logits))
