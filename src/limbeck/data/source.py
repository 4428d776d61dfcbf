"""What a reader hands over: samples by part with their labels, before they are split."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from limbeck.data.base import Split
from limbeck.data.splits import Places

PARTS = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
}
"""What users call the parts of their data, in folder names and in the column `split`."""


@dataclass(frozen=True)
class Built:
    """Splits made from a source.

    Attributes:
        splits: by name: `train`, `val`, `test`, perhaps `pool`.
        encode: JSON-ready: how raw files become such samples.
        tensors: what `encode` needs besides, by name.
    """

    splits: dict[str, Split]
    encode: dict[str, Any]
    tensors: dict[str, Tensor] = field(default_factory=dict)


class Source(ABC):
    """Samples by part (`train`, perhaps `val` and `test`), as a reader found them.

    Attributes:
        name: what messages call it.
        kind: see `limbeck.data.base.Data`.
        labels: class number of every sample, by part.
        classes: class names in label order.
    """

    name: str
    kind: str
    labels: Mapping[str, Tensor]
    classes: tuple[str, ...]

    @abstractmethod
    def build(self, places: Mapping[str, Places]) -> Built:
        """The splits that hold the samples at `places`."""


@dataclass(frozen=True)
class SplitSource(Source):
    """A source whose samples need no fitting: arrays, images, data sets."""

    name: str
    kind: str
    parts: Mapping[str, Split]
    labels: Mapping[str, Tensor]
    classes: tuple[str, ...]
    encode: Mapping[str, Any]

    def build(self, places: Mapping[str, Places]) -> Built:  # noqa: D102
        splits = {name: self.parts[at.part].select(at.rows) for name, at in places.items()}
        return Built(splits, dict(self.encode))
