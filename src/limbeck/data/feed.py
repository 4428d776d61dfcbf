"""The feed: the plan's samples, in the plan's view, as one batch on the device."""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck.data.base import Record, Split
from limbeck.data.plan import BatchPlan
from limbeck.data.views import Views


class Feed:
    """Batches of a training: labelled samples first, then unlabelled ones.

    Args:
        plan: which samples make a step.
        parts: the splits by part, `train` and perhaps `pool`, on the device already.
        views: the augmentation of each part; None leaves samples clean.
        device: where batches are wanted.
    """

    def __init__(
        self,
        plan: BatchPlan,
        parts: dict[str, Split],
        views: dict[str, Views] | None,
        device: torch.device,
    ) -> None:
        self.plan = plan
        self.parts = parts
        self.views = views
        self.device = device
        self._orders: dict[str, tuple[int, Tensor]] = {}

    def batch(self, step: int, micro: int = 0) -> Record:
        """The samples of micro-batch `micro` of `step` for this rank."""
        records = [self._part(part, step, micro) for part in self.parts]
        if len(records) == 1:
            return records[0]
        labeled, pool = records
        return {
            key: torch.cat([value, pool[key]]) if key in pool and key != "y" else value
            for key, value in labeled.items()
        }

    def _part(self, part: str, step: int, micro: int) -> Record:
        split = self.parts[part]
        record = split.fetch(self._rows(part, step, micro))
        split.prefetch(self._rows(part, *self._next(step, micro)))
        if self.views is None:
            return record
        view = self.plan.view(part, step)
        seen = self.views[part](record, view)
        seen["view"] = torch.full((len(seen["index"]),), view)
        return seen

    def _next(self, step: int, micro: int) -> tuple[int, int]:
        micro += 1
        return (step, micro) if micro < self.plan.accumulate else (step + 1, 0)

    def _rows(self, part: str, step: int, micro: int) -> Tensor:
        epoch, span = self.plan.span(part, step, micro)
        held, order = self._orders.get(part, (-1, None))
        if order is None or held != epoch:
            order = self.plan.permutation(part, epoch).to(self.device)
            self._orders[part] = (epoch, order)
        return order[span]
