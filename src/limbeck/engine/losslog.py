"""Losses and figures kept on the device between two log lines, for which alone the host waits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from limbeck.engine.ranks import Ranks


@dataclass(frozen=True)
class Interval:
    """What an interval of steps left.

    Attributes:
        means: mean of each term over the steps that had it.
        figures: mean of everything else that was recorded, numbers or nested lists of them.
        bad_step: the first step (counted from 0 at the interval's start) at which a term was not
            finite or updates were suppressed; None: all is well.
        bad_term: the term that was not finite there; None: a gradient was not.
        suppressed: whether updates are suppressed.
    """

    means: dict[str, float]
    figures: dict[str, Any]
    bad_step: int | None
    bad_term: str | None
    suppressed: bool


class LossLog:
    """Collects the terms of every step; `flush` is the one place where the host waits.

    Args:
        nonfinite: device-side flag, not zero once updates are suppressed.
    """

    _FLAG = ""  # stands among the terms, after those of its step

    def __init__(self, nonfinite: Tensor) -> None:
        self.nonfinite = nonfinite
        self._names: list[str] = []
        self._values: list[Tensor] = []
        self._figures: dict[str, list[Tensor]] = {}

    @property
    def steps(self) -> int:
        """Steps since the last flush."""
        return self._names.count(self._FLAG)

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """Remember the terms of a micro-batch."""
        self._names.extend(terms)
        self._values.extend(value.detach() for value in terms.values())

    def record(self, name: str, value: Tensor) -> None:
        """Remember a figure of any shape, which is no summand of the loss."""
        self._figures.setdefault(name, []).append(value.detach())

    def end_step(self) -> None:
        """Remember whether updates are suppressed by now."""
        self._names.append(self._FLAG)
        self._values.append(self.nonfinite.clone())

    def flush(self, ranks: Ranks) -> Interval:
        """The interval's summary, averaged over the ranks; the collection starts anew."""
        stacked = torch.stack([value.float().reshape(()) for value in self._values])
        (table,) = ranks.mean([stacked])
        values, names = table.tolist(), self._names
        self._names, self._values = [], []
        terms: dict[str, list[float]] = {}
        for name, value in zip(names, values, strict=True):
            terms.setdefault(name, []).append(value)
        suppressed = any(terms.pop(self._FLAG))
        means = {name: sum(found) / len(found) for name, found in terms.items()}
        figures = self._mean_figures(ranks)
        return Interval(means, figures, *self._first_bad(names, values), suppressed)

    def _mean_figures(self, ranks: Ranks) -> dict[str, Any]:
        names, found = list(self._figures), list(self._figures.values())
        self._figures = {}
        if not found:
            return {}
        means = ranks.mean([torch.stack(values).float().mean(0) for values in found])
        return {name: mean.tolist() for name, mean in zip(names, means, strict=True)}

    def _first_bad(self, names: list[str], values: list[float]) -> tuple[int | None, str | None]:
        step = 0
        for name, value in zip(names, values, strict=True):
            if name == self._FLAG:
                if value:
                    return step, None
                step += 1
            elif not math.isfinite(value):
                return step, name
        return None, None
