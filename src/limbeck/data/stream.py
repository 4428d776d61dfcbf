"""Samples that are read from disk batch by batch, for data larger than memory."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property

import torch
from torch import Tensor

from limbeck.data.base import ArraySplit, Record, Split
from limbeck.data.fingerprint import tensors_digest
from limbeck.errors import InputError

THREADS = min(8, os.cpu_count() or 1)
"""Threads that read what is wanted at once."""

_MEMORY = 1 << 30
"""Bytes up to which samples are kept in memory unless the user says otherwise."""

_PROBES = 256
"""How many samples stand for all of them where reading all would take too long."""


class Samples(ABC):
    """Inputs that are read one by one, by position."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, position: int) -> Tensor:
        """Sample `position`, all of one shape and dtype; called from several threads."""

    @abstractmethod
    def describe(self, position: int) -> str:
        """What messages call the sample."""


class StreamSplit(Split):
    """A split whose samples are read when a batch wants them.

    Args:
        samples: where to read.
        y: labels of shape (N,), or None.
        ids: sample ids, int64 of shape (N,); positions by default.
        positions: of this split's samples in `samples`, shape (N,); all by default.
        workers: threads that read ahead (see `prefetch`); 0 reads in the caller's thread.
        device: where batches are delivered.
    """

    def __init__(
        self,
        samples: Samples,
        y: Tensor | None = None,
        ids: Tensor | None = None,
        *,
        positions: Tensor | None = None,
        workers: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.samples = samples
        self.positions = torch.arange(len(samples)) if positions is None else positions
        self.y = y
        self.ids = self.positions if ids is None else ids
        self.workers = workers
        self.device = torch.device(device)
        self._ahead: tuple[Tensor, list[Future[Tensor]]] | None = None

    def __len__(self) -> int:
        return len(self.positions)

    def fetch(self, rows: Tensor) -> Record:  # noqa: D102
        rows = rows.cpu()
        record = {"x": self._collect(rows), "index": self.ids[rows]}
        if self.y is not None:
            record["y"] = self.y[rows]
        return {key: value.to(self.device) for key, value in record.items()}

    def prefetch(self, rows: Tensor) -> None:  # noqa: D102
        if self.workers and len(rows):
            rows = rows.cpu()
            parts = rows.chunk(self.workers)
            self._ahead = rows, [self._threads.submit(self._read, part) for part in parts]

    def _collect(self, rows: Tensor) -> Tensor:
        if self._ahead is None or not torch.equal(self._ahead[0], rows):
            self.prefetch(rows)
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return self._read(rows)
        return torch.cat([part.result() for part in ahead[1]])

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.workers, thread_name_prefix="limbeck-read")

    @cached_property
    def _form(self) -> tuple[torch.Size, torch.dtype]:
        first = self.samples.read(int(self.positions[0]))
        return first.shape, first.dtype

    def _read(self, rows: Tensor) -> Tensor:
        read = []
        for position in self.positions[rows].tolist():
            read.append(self.samples.read(position))
            self._check(read[-1], position)
        return torch.stack(read)

    def _check(self, x: Tensor, position: int) -> None:
        shape, dtype = self._form
        if x.shape != shape or x.dtype != dtype:
            raise InputError(
                f"{self.samples.describe(position)} has shape {tuple(x.shape)} and dtype "
                f"{x.dtype}, the first sample {tuple(shape)} and {dtype}"
            )
        if x.is_floating_point() and not x.isfinite().all():
            raise InputError(f"{self.samples.describe(position)} holds NaN or infinite values")

    def to(self, device: torch.device) -> StreamSplit:  # noqa: D102
        return self._with(self.y, self.ids, self.positions, device)

    def select(self, rows: Tensor) -> StreamSplit:  # noqa: D102
        rows = rows.cpu()
        y = None if self.y is None else self.y[rows]
        return self._with(y, self.ids[rows], self.positions[rows], self.device)

    def without_labels(self) -> StreamSplit:  # noqa: D102
        return self._with(None, self.ids, self.positions, self.device)

    def renumbered(self, ids: Tensor) -> StreamSplit:  # noqa: D102
        return self._with(self.y, ids, self.positions, self.device)

    def _with(
        self, y: Tensor | None, ids: Tensor, positions: Tensor, device: torch.device
    ) -> StreamSplit:
        return StreamSplit(
            self.samples, y, ids, positions=positions, workers=self.workers, device=device
        )

    def spread(self, count: int) -> Tensor:
        """About `count` rows, evenly spread over the split."""
        return torch.arange(0, len(self), max(1, len(self) // count))

    def fingerprint(self) -> str:
        """Hex digest of labels, ids and some 256 samples spread over the split."""
        probes = self.spread(_PROBES)
        x = torch.cat([self._read(rows) for rows in torch.split(probes, 16)])
        return tensors_digest([x, self.y, self.ids])

    def in_memory(self) -> ArraySplit:
        """The same samples, all read now."""
        shape, dtype = self._form
        x = torch.empty((len(self), *shape), dtype=dtype)
        for rows in torch.split(torch.arange(len(self)), 256):
            x[rows] = self.fetch(rows)["x"]
        return ArraySplit(x, self.y, self.ids)


def read_samples(
    samples: Samples, y: Tensor | None = None, *, stream: bool, workers: int = 0
) -> Split:
    """The samples as a split: read now by several threads, or streamed by `workers`."""
    if stream:
        return StreamSplit(samples, y, workers=workers)
    return StreamSplit(samples, y, workers=THREADS).in_memory()


def streams(wish: bool | None, size: int) -> bool:
    """Whether to stream `size` bytes: as the user wishes, else what is larger than 1 GiB."""
    return size > _MEMORY if wish is None else wish
