"""A live teacher's logits, computed once for every sample and view, and kept in memory."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence

import torch
from torch import Tensor, nn

from limbeck.data.base import Record, Split
from limbeck.data.collect import collect
from limbeck.data.views import Views
from limbeck.errors import InputError
from limbeck.teachers.base import Teacher

Tell = Callable[[int, int, str], None]
"""Told (samples done, samples in all, a few words)."""


class Memory:
    """Tables of logits by what they are; the one that was not asked for longest goes first.

    Args:
        limit: bytes that the tables may take together: 256 MiB by default.
    """

    def __init__(self, limit: int = 2**28) -> None:
        self.limit = limit
        self._tables: OrderedDict[Hashable, Tensor] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """The table under `key`, made where it is not there."""
        if key not in self._tables:
            self._tables[key] = make()
            while len(self._tables) > 1 and self._size() > self.limit:
                self._tables.popitem(last=False)
        self._tables.move_to_end(key)
        return self._tables[key]

    def _size(self) -> int:
        return sum(table.numel() * table.element_size() for table in self._tables.values())


class Remembered:
    """Answers with logits that a live teacher gave for the same sample in the same view.

    The table of a view is made when its first batch comes, for all samples at once.

    Args:
        teacher: the live teacher.
        splits: what batches are made of: `train`, and perhaps `pool`, whose rows come last.
        views: the augmentation of each, None: samples are clean.
        memory: where tables are kept; trainings that share it share them.
        device: of the batches.
        tell: told of progress.
    """

    live = False
    taps: Sequence[str] = ()

    def __init__(
        self,
        teacher: Teacher,
        splits: Mapping[str, Split],
        views: Mapping[str, Views] | None,
        memory: Memory,
        device: torch.device,
        tell: Tell = lambda done, total, words: None,
    ) -> None:
        self.name = teacher.name
        self.teacher = teacher
        self.splits = dict(splits)
        self.views = views or {}
        self.memory = memory
        self.device = device
        self.tell = tell
        self._kinds = {
            name: json.dumps(views.definition(), sort_keys=True)
            for name, views in self.views.items()
        }
        self._rows = {name: _rows_by_id(split).to(device) for name, split in splits.items()}

    def modules(self) -> list[nn.Module]:
        """Those of the teacher."""
        return self.teacher.modules()

    def module(self, path: str) -> nn.Module:
        """The part of the teacher at `path`."""
        return self.teacher.module(path)

    def survey(self, batch: Record) -> dict[str, tuple[int, ...]]:
        """Nothing can be tapped."""
        return {}

    def tap(self, paths: Sequence[str]) -> None:
        """Refuse features, which are not kept."""
        if paths:
            raise InputError(f"only the logits of {self.name!r} are kept, not its {paths[0]!r}")

    def outputs(self, split: Split) -> Tensor | None:
        """Logits of the clean samples of a whole split, on the CPU."""
        return self.teacher.outputs(split)

    def __call__(self, batch: Record) -> Record:
        """The logits of the batch's samples, in the batch's views."""
        index = batch["index"]
        labeled = len(batch["y"]) if "pool" in self.splits and "y" in batch else len(index)
        parts = []
        for name, begin, end in (("train", 0, labeled), ("pool", labeled, len(index))):
            if begin < end:
                view = int(batch["view"][begin]) if "view" in batch else 0
                parts.append(self.table(name, view)[self._rows[name][index[begin:end]]])
        return {"logits": parts[0] if len(parts) == 1 else torch.cat(parts)}

    def table(self, part: str, view: int) -> Tensor:
        """The logits of every sample of a part in a view, shape (N, C)."""
        key = (self.teacher, part, self._kinds.get(part) if view else None, view)
        return self.memory.get(key, lambda: self._make(part, view))

    def _make(self, part: str, view: int) -> Tensor:
        split, done = self.splits[part], 0

        def answer(batch: Record) -> Tensor:
            return self.teacher(self.views[part](batch, view) if view else batch)["logits"]

        def tell(count: int) -> None:
            nonlocal done
            done += count
            self.tell(done, len(split), f"teacher on the {part} split, view {view}")

        return collect(answer, split, tell).to(self.device)


def _rows_by_id(split: Split) -> Tensor:
    """Position of each id in the split."""
    rows = torch.full((int(split.ids.max()) + 1,), -1)
    rows[split.ids.cpu()] = torch.arange(len(split))
    return rows
