"""Reading a store: rows are found by the content of a sample and read without copying the rest."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from limbeck.data.base import Record, Split
from limbeck.data.fingerprint import sample_hashes
from limbeck.errors import InputError, nearest
from limbeck.store.manifest import INDEX, PROBES, Manifest, Shard, read_manifest
from limbeck.store.packing import unpack
from limbeck.store.shards import file_sha256, length, read_shard


class TeacherStore:
    """The outputs of one teacher, on disk; read-only, and shared by any number of processes.

    A row is a sample: its id, the hash of its content, and for each view what was kept of the
    logits and features.

    Args:
        path: the folder that `limbeck label` left.

    Raises:
        InputError: no store there, one that is incomplete, or a damaged or missing file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.manifest: Manifest = read_manifest(self.path)
        self._shards = [self._open(shard) for shard in self.manifest.shards]
        self._flat = [_Flat(shard) for shard in self._shards]
        sizes = torch.tensor([0, *(shard.rows for shard in self.manifest.shards)])
        self._ends = sizes.cumsum(0)
        self._each = [shard.views for shard in self.manifest.shards]
        self._views = torch.tensor(self._each)
        self._bounds = self._ends.numpy()
        index = read_shard(self.path / INDEX)
        self._hash, self._row = index["hash"], index["row"]

    def _open(self, shard: Shard) -> Record:
        record = read_shard(self.path / shard.file)
        if length(record) != shard.rows:
            raise InputError(
                f"the shard {self.path / shard.file} has {length(record)} rows, its manifest says "
                f"{shard.rows}; it is damaged or of another store: label again"
            )
        return record

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __repr__(self) -> str:
        views = self.manifest.replay.count
        kept = f"top {self.top_k}" if self.top_k else "all"
        return (
            f"TeacherStore({str(self.path)!r}: {len(self):,} samples, {views} view(s), "
            f"{kept} of {len(self.classes)} logits, {self.manifest.dtype})"
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the logits."""
        return tuple(self.manifest.classes)

    @property
    def top_k(self) -> int | None:
        """Logits kept of each row, None: all."""
        return self.manifest.top_k

    @property
    def views(self) -> int:
        """Views of a training sample; view 0 is the clean one."""
        return self.manifest.replay.count

    def ids(self, rows: Tensor) -> Tensor:
        """The ids that the samples of `rows` had when they were labelled, int64."""
        return self._column("id", rows)

    def find(self, hashes: Tensor, views: int = 1) -> Tensor:
        """The rows of samples by the hash of their content.

        Equal samples are matched in order: the second of them with the second row, so that
        data that has not changed gets its own rows.

        Args:
            hashes: int64 of shape (N,), from `sample_hashes`.
            views: a row must have at least so many.

        Returns:
            int64 of shape (N,), -1 where there is no such row.
        """
        begin = torch.searchsorted(self._hash, hashes)
        end = torch.searchsorted(self._hash, hashes, right=True)
        place = begin + _occurrence(hashes) % (end - begin).clamp_min(1)
        row = self._row[place.clamp_max(len(self._row) - 1)]
        first = self._row[begin.clamp_max(len(self._row) - 1)]
        row = torch.where(self._views[self._shard_of(row)] >= views, row, first)
        found = (end > begin) & (self._views[self._shard_of(row)] >= views)
        return torch.where(found, row, -1)

    def match(self, split: Split, views: int = 1) -> Tensor:
        """The row of every sample of a split, -1 where there is none; reads the whole split."""
        return self.find(sample_hashes(split), views)

    def read(self, rows: Tensor, view: Tensor | int = 0) -> Record:
        """What is kept of some rows.

        Args:
            rows: int64 of shape (B,), each a row of this store.
            view: which view, one for all or one each.

        Returns:
            `logits`, or `values`, `indices` and `rest`, and `feature.PATH`, each of B rows.
        """
        places = rows.numpy()
        views = view.expand(len(rows)).numpy() if isinstance(view, Tensor) else view
        if len(self._flat) == 1:
            return _tensors(self._flat[0].take(places * self._each[0] + views))
        which = np.searchsorted(self._bounds, places, "right") - 1
        every = np.broadcast_to(views, places.shape)
        parts = []
        for number in sorted(set(which.tolist())):
            mine = (which == number).nonzero()[0]
            local = (places[mine] - self._bounds[number]) * self._each[number] + every[mine]
            parts.append((mine, self._flat[number].take(local)))
        back = np.concatenate([mine for mine, _ in parts]).argsort()
        keys = parts[0][1]
        return _tensors({key: np.concatenate([one[key] for _, one in parts])[back] for key in keys})

    def logits(self, rows: Tensor, view: Tensor | int = 0, *, tail: str = "spread") -> Tensor:
        """Logits over all classes, float32 of shape (B, C); see `limbeck.store.packing.unpack`."""
        return unpack(self.read(rows, view), len(self.classes), tail)

    def probes(self) -> Record:
        """Some inputs as the teacher saw them: `id`, `hash`, `view` and `x`."""
        return read_shard(self.path / PROBES)

    def check_features(self, paths: list[str]) -> None:
        """Refuse features that were not stored."""
        have = self.manifest.features
        for path in paths:
            if path not in have:
                held = f"it holds {', '.join(have)}" if have else "it holds logits only"
                raise InputError(
                    f"the store {self.path} has no feature {path!r}{nearest(path, have)} ({held}); "
                    f"label again with --teachers.0.taps {path}"
                )

    def damaged(self) -> list[str]:
        """The files whose content is not what was written; reads all of them."""
        known = {shard.file: shard.sha256 for shard in self.manifest.shards}
        known |= {INDEX: self.manifest.index, PROBES: self.manifest.probes}
        return [name for name, digest in known.items() if file_sha256(self.path / name) != digest]

    def _shard_of(self, rows: Tensor) -> Tensor:
        return torch.bucketize(rows, self._ends[1:], right=True).clamp_max(len(self._flat) - 1)

    def _column(self, key: str, rows: Tensor) -> Tensor:
        which = self._shard_of(rows)
        column = torch.empty(len(rows), dtype=torch.int64)
        for number in sorted(set(which.tolist())):
            place = which == number
            column[place] = self._shards[number][key][rows[place] - self._ends[number]]
        return column


class _Flat:
    """A shard's outputs with one row a view, ids and hashes left out, as arrays: numpy picks rows
    in a fifth of the time that torch takes for it.
    """

    def __init__(self, shard: Record) -> None:
        kept = {key: value for key, value in shard.items() if key not in ("id", "hash")}
        self.arrays = {key: _array(value.flatten(0, 1)) for key, value in kept.items()}

    def take(self, places: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        return {key: array.take(places, 0) for key, array in self.arrays.items()}


def _array(value: Tensor) -> NDArray[Any]:
    """numpy knows no bfloat16: its bits travel as uint16, which a store has no other use for."""
    brain = value.dtype == torch.bfloat16
    bits: NDArray[Any] = (value.view(torch.uint16) if brain else value).numpy()
    return bits


def _tensors(arrays: dict[str, NDArray[Any]]) -> Record:
    return {
        key: torch.from_numpy(array).view(torch.bfloat16)
        if array.dtype == np.uint16
        else torch.from_numpy(array)
        for key, array in arrays.items()
    }


def _occurrence(values: Tensor) -> Tensor:
    """How many equal values stand before each."""
    order = values.argsort(stable=True)
    ranked = values[order]
    new = torch.ones(len(values), dtype=torch.bool)
    new[1:] = ranked[1:] != ranked[:-1]
    place = torch.arange(len(values))
    start = torch.where(new, place, 0).cummax(0).values
    occurrence = torch.empty_like(place)
    occurrence[order] = place - start
    return occurrence
