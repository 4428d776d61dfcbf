"""What data is: splits of samples that are fetched by position, and the facts about them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Record = dict[str, Tensor]
"""A batch, or what a model said about it. Keys: `x`, `y`, `index`, `student.logits`, ...

`view`, where samples are augmented, is the number of each sample's view. It lies on the CPU on
every device, so that whoever asks for it does not wait.

Where labelled and unlabelled samples share a batch the labelled ones come first, and `y`
has only as many rows as there are labels.
"""


class Split(ABC):
    """Samples in a fixed order, fetched by position in whole batches.

    `index` in a fetched record is the sample's id: the same in every epoch and every run
    over the same data, the key of stores and of per-sample weights.
    """

    ids: Tensor
    """int64 ids of all samples on the CPU: what `index` holds."""

    y: Tensor | None
    """int64 labels (or float targets) of all samples on the CPU, None where unlabelled."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def fetch(self, rows: Tensor) -> Record:
        """The samples at positions `rows` (int64, CPU or the split's device, shape (B,)).

        Returns:
            `x` of shape (B, ...), `index` of shape (B,), and `y` of shape (B,) where labelled.
        """

    def prefetch(self, rows: Tensor) -> None:  # noqa: B027  (most splits have nothing to do)
        """Say which rows will be fetched next; a split that reads from disk starts on them."""

    @abstractmethod
    def to(self, device: torch.device) -> Split:
        """The same samples, their tensors held on (or moved to, batch by batch) `device`."""

    @abstractmethod
    def select(self, rows: Tensor) -> Split:
        """The samples at positions `rows`, as a split of their own (ids are kept)."""

    @abstractmethod
    def without_labels(self) -> Split:
        """The same samples as a pool."""

    @abstractmethod
    def renumbered(self, ids: Tensor) -> Split:
        """The same samples under other ids, int64 of shape (N,)."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Hex digest of the samples and labels, in order."""


class ArraySplit(Split):
    """A split whose samples lie in memory as one tensor, on any device.

    Args:
        x: samples, shape (N, ...); images as uint8 or float in (N, C, H, W).
        y: labels of shape (N,), or None.
        ids: sample ids, int64 of shape (N,); positions by default.
    """

    def __init__(self, x: Tensor, y: Tensor | None = None, ids: Tensor | None = None) -> None:
        self.x = x
        self.y = None if y is None else y.cpu()
        self.ids = torch.arange(len(x)) if ids is None else ids
        self._y_device = None if y is None else y.to(x.device)
        self._ids_device = self.ids.to(x.device)

    def __len__(self) -> int:
        return len(self.x)

    def fetch(self, rows: Tensor) -> Record:  # noqa: D102
        rows = rows.to(self.x.device)
        record = {
            "x": self.x.index_select(0, rows),
            "index": self._ids_device.index_select(0, rows),
        }
        if self._y_device is not None:
            record["y"] = self._y_device.index_select(0, rows)
        return record

    def to(self, device: torch.device) -> ArraySplit:  # noqa: D102
        return ArraySplit(self.x.to(device), self.y, self.ids)

    def select(self, rows: Tensor) -> ArraySplit:  # noqa: D102
        host = rows.cpu()
        y = None if self.y is None else self.y[host]
        return ArraySplit(self.x.index_select(0, rows.to(self.x.device)), y, self.ids[host])

    def without_labels(self) -> ArraySplit:  # noqa: D102
        return ArraySplit(self.x, None, self.ids)

    def renumbered(self, ids: Tensor) -> ArraySplit:  # noqa: D102
        return ArraySplit(self.x, self.y, ids)

    def fingerprint(self) -> str:  # noqa: D102
        from limbeck.data.fingerprint import tensors_digest  # which stands on this module

        return tensors_digest([self.x, self.y])


@dataclass(frozen=True)
class Data:
    """All splits of one data set, and what models and reports must know about it.

    Attributes:
        name: what the user called it.
        kind: "image", "table", "text" (encoded already) or "array".
        train: labelled training samples.
        val: validation samples; never empty.
        test: read once, by evaluation; None where the user has none.
        pool: unlabelled samples, or None.
        classes: class names in label order; empty where the target is no class.
        shape: shape of one sample as models see it, without the batch axis.
        mean: per-channel mean of the training images in [0, 1], None: leave values as they are.
        std: per-channel standard deviation, like `mean`.
        facts: JSON-ready provenance: source, sizes, digests, class counts, how it was split.
        encode: how raw files become samples (fitted on the training split): JSON-ready state.
        encode_tensors: what `encode` needs besides and JSON is unfit for, by name.
    """

    name: str
    kind: str
    train: Split
    val: Split
    test: Split | None
    pool: Split | None
    classes: tuple[str, ...]
    shape: tuple[int, ...]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    encode: Mapping[str, Any] = field(default_factory=dict)
    encode_tensors: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def splits(self) -> dict[str, Split]:
        """The splits that exist, by name."""
        named = {"train": self.train, "val": self.val, "test": self.test, "pool": self.pool}
        return {name: split for name, split in named.items() if split is not None}
