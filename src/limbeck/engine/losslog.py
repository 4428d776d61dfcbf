"""Losses kept on the device between two log lines, so that the host waits once an interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from limbeck.engine.ranks import Ranks


@dataclass(frozen=True)
class Interval:
    """What an interval of steps left.

    Attributes:
        means: mean of each term over the interval.
        bad_term: the first term that was not finite, None: all were.
        bad_step: how many steps into the interval it was.
        suppressed: whether updates are suppressed (a loss or a gradient was not finite).
    """

    means: dict[str, float]
    bad_term: str | None
    bad_step: int
    suppressed: bool


class LossLog:
    """Collects the terms of every step; `flush` is the one place where the host waits."""

    def __init__(self, nonfinite: Tensor) -> None:
        self.nonfinite = nonfinite
        self.names: tuple[str, ...] = ()
        self.rows: list[Tensor] = []
        self.steps = 0

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """Remember the terms of a step (or of one of its micro-batches)."""
        self.names = tuple(terms)
        self.rows.extend(value.detach() for value in terms.values())
        self.steps += 1

    def flush(self, ranks: Ranks) -> Interval:
        """The interval's summary, averaged over the ranks; the collection starts anew."""
        (table,) = ranks.mean([torch.stack([value.float().reshape(()) for value in self.rows])])
        values = torch.cat([table, self.nonfinite.reshape(1)]).cpu()
        table = values[:-1].view(self.steps, len(self.names))
        suppressed = bool(values[-1])
        means = dict(zip(self.names, table.double().mean(0).tolist(), strict=True))
        bad = (~table.isfinite()).nonzero()
        self.rows, self.steps = [], 0
        if len(bad):
            step, term = bad[0].tolist()
            return Interval(means, self.names[term], step, suppressed)
        return Interval(means, None, 0, suppressed)
