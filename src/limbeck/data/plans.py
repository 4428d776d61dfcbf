"""Plans of augmentations, kept for as long as batch after batch asks for the same view."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from limbeck.data.base import Record, Split
from limbeck.data.ops import Op, Plan

_LARGEST = 1 << 22
"""Ids up to which plans are kept."""

_CALLS = 3
"""From this call on in a row a plan is made for all ids at once."""


@dataclass
class _Kept:
    seed: int
    calls: int = 0
    plan: Plan | None = None


class Plans:
    """Plans of operations, which on the CPU are made for all samples of a view at once.

    Making a plan takes some twenty small operators: for a small batch that is as dear as moving its
    pixels. A plan depends on ids alone, so the batches of an epoch can share one. On other devices
    small operators run beside the host, and nothing is kept.

    Args:
        source: the split that batches come from; None keeps nothing.
    """

    def __init__(self, source: Split | None) -> None:
        bound = 0 if source is None or not len(source) else int(source.ids.max()) + 1
        self._bound = bound if bound <= _LARGEST else 0
        self._kept: dict[int, _Kept] = {}

    def __call__(self, position: int, op: Op, record: Record, seed: int) -> Plan:
        """The plan for the samples of `record`.

        Args:
            position: of the operation among those of the views.
            op: the operation.
            record: `x` and `index`.
            seed: of its draws.
        """
        index, shape = record["index"], record["x"].shape[1:]
        if self._bound and op.light and index.device.type == "cpu":
            whole = self._whole(position, op, seed, shape)
            if whole is not None:
                try:
                    return tuple(part.index_select(0, index) for part in whole)
                except IndexError:  # samples from elsewhere
                    pass
        return op.plan(index, seed, shape)

    def _whole(self, position: int, op: Op, seed: int, shape: torch.Size) -> Plan | None:
        """The plan for all ids, once it has been wanted several times in a row."""
        kept = self._kept.get(position)
        if kept is None or kept.seed != seed:
            kept = self._kept[position] = _Kept(seed)
        kept.calls += 1
        if kept.plan is None and kept.calls >= _CALLS:
            kept.plan = op.plan(torch.arange(self._bound), seed, shape)
        return kept.plan
