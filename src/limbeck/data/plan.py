"""The batch plan: which samples, in which view, make a step. A pure function of (seed, step)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from limbeck.data.random import generator
from limbeck.errors import InputError


@dataclass(frozen=True)
class BatchPlan:
    """Step to sample positions, for one of several ranks.

    An epoch is one pass over the labelled samples; its last, incomplete batch is dropped.
    Unlabelled samples (the pool) come in an endless stream of permutations of their own.

    Attributes:
        labeled: number of labelled samples.
        pool: number of unlabelled samples.
        batch: labelled samples in a step, over all ranks and micro-batches.
        pool_ratio: unlabelled samples for each labelled one.
        seed: the run's seed.
        accumulate: micro-batches in a step.
        ranks: processes that share a step.
        rank: which of them this is.
        view_count: views that are replayed in turn, the clean one first; None: fresh ones.
    """

    labeled: int
    batch: int
    seed: int
    pool: int = 0
    pool_ratio: int = 1
    accumulate: int = 1
    ranks: int = 1
    rank: int = 0
    view_count: int | None = None

    def __post_init__(self) -> None:
        pieces = self.ranks * self.accumulate
        if min(self.batch, self.labeled) < pieces or (
            self.batch % pieces and self.batch <= self.labeled
        ):
            raise InputError(
                f"a batch of {self.batch} (of {self.labeled} training samples) cannot be shared "
                f"evenly by {self.ranks} rank(s) x {self.accumulate} micro-batch(es); choose "
                f"training.batch as a multiple of {pieces}"
            )
        if self.pool and not self.pool_batch:
            raise InputError(
                f"{self.pool} unlabelled sample(s) cannot be shared by {self.ranks} rank(s) x "
                f"{self.accumulate} micro-batch(es); give at least {pieces}"
            )

    @property
    def global_batch(self) -> int:
        """Labelled samples in a step; fewer than `batch` only where fewer exist."""
        pieces = self.ranks * self.accumulate
        return min(self.batch, self.labeled) // pieces * pieces

    @property
    def pool_batch(self) -> int:
        """Unlabelled samples in a step."""
        pieces = self.ranks * self.accumulate
        return min(self.global_batch * self.pool_ratio, self.pool) // pieces * pieces

    @property
    def steps_per_epoch(self) -> int:
        """Steps in one pass over the labelled samples."""
        return self.labeled // self.global_batch

    def view(self, part: str, step: int) -> int:
        """Number of the view of `part` that is replayed at `step`; 0 is the clean sample.

        Without `view_count` a fresh one for every pass over the part, so that no sample comes
        twice in the same view; else those from 0 on in turn.
        """
        epoch = step // self._steps(part)
        return 1 + epoch if self.view_count is None else epoch % self.view_count

    def permutation(self, part: str, epoch: int) -> Tensor:
        """The order of the samples of `part` ("train" or "pool") in `epoch`."""
        count = self.labeled if part == "train" else self.pool
        return torch.randperm(count, generator=generator(self.seed, "plan", part, epoch))

    def span(self, part: str, step: int, micro: int) -> tuple[int, slice]:
        """The epoch of `part` and the slice of its permutation that this rank takes."""
        epoch, place = divmod(step, self._steps(part))
        size = self.global_batch if part == "train" else self.pool_batch
        share = size // (self.ranks * self.accumulate)
        start = place * size + (micro * self.ranks + self.rank) * share
        return epoch, slice(start, start + share)

    def _steps(self, part: str) -> int:
        """Steps in one pass over `part`."""
        return self.steps_per_epoch if part == "train" else self.pool // self.pool_batch
