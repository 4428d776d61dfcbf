"""A teacher whose outputs lie in a store: no forward pass, no model."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from limbeck.data.base import Record, Split
from limbeck.data.fingerprint import sample_hashes
from limbeck.errors import InputError
from limbeck.store.packing import TAILS, unpack
from limbeck.store.reader import TeacherStore
from limbeck.teachers.live import class_order

_log = logging.getLogger("limbeck")

RESIDENT_BYTES = 2 << 30
"""Rows that are moved to an accelerator at once; more are read batch by batch."""


class Stored:
    """Answers with what a store holds for the batch's samples in the batch's view.

    Args:
        store: the outputs.
        classes: the data's class names; the store's may stand in another order.
        tail: what a store of the top logits says of the others, see `limbeck.store.packing`.
        name: what the user called it.

    Raises:
        InputError: the store was made for other classes.
    """

    live = False

    def __init__(
        self,
        store: TeacherStore,
        classes: Sequence[str],
        *,
        tail: str = "spread",
        name: str | None = None,
    ) -> None:
        if tail not in TAILS:
            raise InputError(f"tail={tail} of the store {store.path} is not {' or '.join(TAILS)}")
        self.store = store
        self.name = name or f"store:{store.path}"
        self.tail = tail
        self.taps: Sequence[str] = ()
        self.classes = tuple(classes)
        self._order = _order(store, classes)
        self._row = torch.empty(0, dtype=torch.int64)
        self._views = 1
        self._table: Record | None = None

    def modules(self) -> list[nn.Module]:
        """None: nothing is run."""
        return []

    def module(self, path: str) -> nn.Module:
        """Refuse: outputs are stored, modules are not."""
        raise InputError(
            f"this method needs the teacher's module {path!r}, and the store {self.store.path} "
            f"holds outputs only; give the teacher itself with --teacher MODEL"
        )

    def survey(self, batch: Record) -> dict[str, tuple[int, ...]]:
        """The stored features and, last, the logits; an `InputError` where there are none."""
        features = self.store.manifest.features
        if not features:
            raise InputError(
                f"this method reads features of the teacher, and the store {self.store.path} "
                f"holds logits only; label again with --teachers.0.taps PATH --features full, or "
                f"give the teacher itself with --teacher MODEL"
            )
        shapes = {path: tuple(shape) for path, shape in features.items()}
        return shapes | {"logits": (len(self.classes),)}

    def tap(self, paths: Sequence[str]) -> None:
        """Read these features too; an `InputError` where they were not stored."""
        self.store.check_features(list(paths))
        self.taps = tuple(paths)

    def outputs(self, split: Split) -> Tensor | None:
        """Clean logits of a whole split, found by content; None where some are not stored."""
        rows = self.store.match(split)
        return None if (rows < 0).any() else self._logits(self.store.read(rows))

    def serving(
        self, splits: Mapping[str, Split], views: int, device: torch.device
    ) -> tuple[Stored, dict[str, Split]]:
        """This teacher, ready for batches of these splits.

        Args:
            splits: the training samples and perhaps the pool, by name.
            views: how many views of a sample will be asked for.
            device: of the batches.

        Returns:
            The teacher, and the splits under the ids that the store knows them by, which draw the
            stored views; without the samples for which the teacher had no output.

        Raises:
            InputError: a sample that the store does not hold in so many views.
        """
        ready = Stored(self.store, self.classes, tail=self.tail, name=self.name)
        ready.taps, ready._views = self.taps, views
        served, ids, rows = {}, [], []
        for name, split in splits.items():
            hashes = sample_hashes(split)
            found = self.store.find(hashes, views)
            if (found < 0).any():
                split, found = self._without_skipped(name, split, hashes, found, views)
            if views > 1:
                split = split.renumbered(self.store.ids(found))
            served[name] = split
            ids.append(split.ids)
            rows.append(found)
        every = torch.cat(ids)
        ready._row = torch.full((int(every.max()) + 1,), -1)
        ready._row[every] = torch.cat(rows)
        if device.type != "cpu":
            ready._hold(device)
        return ready, served

    def _without_skipped(
        self, name: str, split: Split, hashes: Tensor, rows: Tensor, views: int
    ) -> tuple[Split, Tensor]:
        """Leave out what the labelling had to leave out; anything else that is missing is wrong."""
        skipped = torch.isin(hashes, torch.tensor(self.store.manifest.skipped, dtype=torch.int64))
        missing = ((rows < 0) & ~skipped).nonzero().squeeze(1)
        if len(missing):
            some = ", ".join(str(int(split.ids[row])) for row in missing[:8])
            held = "" if views == 1 else f" in {views} views"
            raise InputError(
                f"the store {self.store.path} does not hold {len(missing)} of {len(split)} samples "
                f"of the {name} split{held} (ids {some}{', ...' if len(missing) > 8 else ''}): "
                f"they are new or have changed since it was made; label this data again"
            )
        kept = (rows >= 0).nonzero().squeeze(1)
        _log.warning(
            "%d of %d samples of the %s split are left out: the teacher had no finite output",
            len(split) - len(kept),
            len(split),
            name,
        )
        return split.select(kept), rows[kept]

    def _hold(self, device: torch.device) -> None:
        """Keep the outputs of the served splits in the memory of `device`, where they fit."""
        held = self._row >= 0
        rows, views = self._row[held], self._views
        one = self.store.read(rows[:1])
        bytes_each = sum(value[0].numel() * value.element_size() for value in one.values())
        if len(rows) * views * bytes_each > RESIDENT_BYTES:
            return
        every = torch.arange(views).repeat(len(rows))
        kept = self.store.read(rows.repeat_interleave(views), every)
        self._table = {key: value.to(device) for key, value in kept.items()}
        self._row[held] = torch.arange(len(rows))
        self._row = self._row.to(device)

    def __call__(self, batch: Record) -> Record:
        """The stored outputs of the batch."""
        index = batch["index"]
        view = batch.get("view", torch.zeros((), dtype=torch.int64))
        if self._table is not None:
            places = self._row[index] * self._views + view.to(index.device)
            return self._record({key: value[places] for key, value in self._table.items()})
        kept = self.store.read(self._row[index.cpu()], view)
        return self._record({key: value.to(index.device) for key, value in kept.items()})

    def _record(self, kept: Record) -> Record:
        record = {"logits": self._logits(kept)}
        for path in self.taps:
            record[path] = kept[f"feature.{path}"].float()
        return record

    def _logits(self, kept: Record) -> Tensor:
        logits = unpack(kept, len(self.store.classes), self.tail)
        if self._order is None:
            return logits
        return logits.index_select(1, self._order.to(logits.device))


def _order(store: TeacherStore, classes: Sequence[str]) -> Tensor | None:
    """For each class of the data the store's column; None where they are the same."""
    if tuple(classes) == store.classes:
        return None
    if len(classes) != len(store.classes):
        raise InputError(
            f"the store {store.path} holds logits of {len(store.classes)} classes "
            f"({', '.join(store.classes[:5])}, ...), the data has {len(classes)} "
            f"({', '.join(classes[:5])}, ...); label this data with its own teacher"
        )
    return torch.tensor(class_order(store.classes, classes, f"store:{store.path}"))
