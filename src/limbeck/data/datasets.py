"""Map-style data sets: anything with `__len__` and `__getitem__`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from limbeck.data.arrays import encoding, kind_of
from limbeck.data.base import Split
from limbeck.data.labels import number_labels
from limbeck.data.source import SplitSource
from limbeck.data.stream import Samples, read_samples, streams
from limbeck.errors import InputError
from limbeck.recipe.spec import DataSpec


class DatasetSamples(Samples):
    """The inputs of a map-style data set.

    Args:
        dataset: its items are x, (x, y) or {"x": ..., "y": ...}; x a tensor, array or PIL image.
        name: what messages call it.
    """

    def __init__(self, dataset: Any, name: str) -> None:
        self.dataset = dataset
        self.name = name

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, position: int) -> Tensor:  # noqa: D102
        return _tensor(_pair(self.dataset[position], self.name)[0], self.describe(position))

    def describe(self, position: int) -> str:  # noqa: D102
        return f"sample {position} of {self.name}"

    def labels(self) -> NDArray[Any]:
        """The label of every sample: the attribute `targets`, else from reading all samples."""
        targets = getattr(self.dataset, "targets", None)
        if targets is None or len(targets) != len(self):
            targets = [self._label(position) for position in range(len(self))]
        return np.asarray(targets)

    def _label(self, position: int) -> Any:
        y = _pair(self.dataset[position], self.name)[1]
        if y is None:
            raise InputError(
                f"{self.describe(position)} has no label; items must be (x, y) or "
                '{"x": ..., "y": ...}'
            )
        return y.item() if hasattr(y, "item") else y


def is_dataset(value: Any) -> bool:
    """Whether `value` is a map-style data set."""
    return hasattr(value, "__len__") and hasattr(value, "__getitem__")


def dataset_source(
    datasets: Mapping[str, Any], spec: DataSpec, *, name: str, workers: int
) -> SplitSource:
    """A labelled source from data sets by part, `train` and perhaps `val` and `test`.

    Args:
        datasets: map-style, without random transforms.
        spec: its `stream`; by default what is larger than 1 GiB streams.
        name: what messages call it.
        workers: threads that read streamed batches.

    Raises:
        InputError: an empty data set, items of another form, or random samples.
    """
    samples = {part: DatasetSamples(one, f"{name} ({part})") for part, one in datasets.items()}
    for part, one in samples.items():
        if not len(one):
            raise InputError(f"the {part} part of {name} is empty")
        _check_repeatable(one)
    labels, classes = number_labels(
        {part: one.labels() for part, one in samples.items()}, None, source=name
    )
    first = samples["train"].read(0)
    stream = streams(spec.stream, first.nbytes * sum(map(len, samples.values())))
    parts: dict[str, Split] = {
        part: read_samples(one, labels[part], stream=stream, workers=workers)
        for part, one in samples.items()
    }
    some = parts["train"].fetch(torch.arange(min(256, len(parts["train"]))))["x"]
    return SplitSource(
        name=name,
        kind=kind_of(first.shape),
        parts=parts,
        labels=labels,
        classes=classes,
        encode=encoding(some),
    )


def _check_repeatable(samples: DatasetSamples) -> None:
    """Random transforms would be frozen in memory, and make every stored output wrong."""
    for position in range(min(4, len(samples))):
        if not torch.equal(samples.read(position), samples.read(position)):
            raise InputError(
                f"{samples.describe(position)} differs from one reading to the next; take the "
                "random transform out of the data set and set it as training.views"
            )


def _pair(item: Any, name: str) -> tuple[Any, Any]:
    """x and y (None where there is none) of an item."""
    if isinstance(item, Mapping):
        if "x" not in item:
            raise InputError(f"items of {name} have keys {', '.join(item)}; expected are x and y")
        return item["x"], item.get("y")
    if isinstance(item, tuple | list):
        return (item[0], item[1]) if len(item) > 1 else (item[0], None)
    return item, None


def _tensor(x: Any, what: str) -> Tensor:
    """One sample: images as (C, H, W), floats as float32, integers beyond a byte as int64."""
    if hasattr(x, "convert") and hasattr(x, "mode"):  # a PIL image
        x = np.array(x if x.mode in ("L", "RGB") else x.convert("RGB"))
    tensor = torch.as_tensor(x).detach().cpu()
    if tensor.dtype == torch.uint8:
        if tensor.ndim == 2:
            return tensor[None]
        if tensor.ndim == 3 and tensor.shape[-1] in (1, 3, 4) and tensor.shape[0] not in (1, 3, 4):
            return tensor.permute(2, 0, 1).contiguous()
        return tensor
    if not tensor.ndim:
        raise InputError(f"{what} is a single number; samples need an axis, for example x[None]")
    return tensor.long() if tensor.dtype in (torch.int32, torch.int64) else tensor.float()
