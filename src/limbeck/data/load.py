"""The front door of the data: any source becomes `Data`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limbeck.data.arrays import array_source, read_npz
from limbeck.data.base import ArraySplit, Data, Split
from limbeck.data.checks import check_finite
from limbeck.data.datasets import dataset_source, is_dataset
from limbeck.data.images import folder_source
from limbeck.data.inputs import load_inputs
from limbeck.data.named import NAMED, digits, find_named
from limbeck.data.paths import check_path, is_name
from limbeck.data.source import Built, Source
from limbeck.data.splits import assign
from limbeck.data.stream import StreamSplit
from limbeck.data.tables import table_source
from limbeck.errors import InputError
from limbeck.recipe.spec import DataSpec

_MANY = 2048
"""Images from which mean and deviation of a streamed data set are estimated."""


def load_data(
    source: Any, *, spec: DataSpec | None = None, seed: int | None = None, workers: int = 0
) -> Data:
    """Read, check and split data.

    Ids (`index` of a sample) are positions in the source's training part, where the samples of
    `train`, of a held-out `val` or `test` and of a pool made by `data.labels` come from; the
    samples of `data.unlabeled` are numbered on after them. A `val` or `test` part of the source's
    own is numbered from 0. So ids are unique over `train` and `pool`.

    Args:
        source: a `DataSpec`; the name of a public set or a path; `Data`, returned as it is; a
            mapping of arrays as an `.npz` holds them, or of data sets by part; `(x, y)` or
            `(x_train, y_train, x_test, y_test)`; a map-style data set.
        spec: how to read and split; its `source` gives way to `source`.
        seed: of the splits; None takes the spec's `split_seed`.
        workers: threads that read streamed batches ahead.

    Returns:
        Splits on the CPU. Images given as bytes stay uint8 (N, C, H, W), and `mean` and `std` are
        those of the training images in [0, 1]; float arrays stay as they are. Tables and texts
        are float32 vectors, or int64 token ids.

    Raises:
        InputError: whatever is wrong with the data, in one sentence.
    """
    if isinstance(source, Data):
        return source
    if isinstance(source, DataSpec):
        spec, source = source, source.source
    spec = spec or DataSpec()
    seed = spec.split_seed if seed is None else seed
    found = _read(source, spec, seed, workers)
    places = assign(found.labels, spec, seed=seed, classes=found.classes)
    built = found.build(places)
    splits = _with_pool(built, spec, len(found.labels["train"]))
    for part, split in splits.items():
        check_finite(split, f"the {part} split of {found.name}")
    mean, std = statistics(splits["train"], found.kind)
    return Data(
        name=str(source) if isinstance(source, str | Path) else found.name,
        kind=found.kind,
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
        pool=splits.get("pool"),
        classes=found.classes,
        shape=shape_of(splits["train"]),
        mean=mean,
        std=std,
        facts=_facts(found, splits, spec, seed),
        encode=built.encode,
        encode_tensors=built.tensors,
    )


def _read(source: Any, spec: DataSpec, seed: int, workers: int) -> Source:
    """The reader for this kind of source."""
    if isinstance(source, str | Path):
        return _read_path(str(source), spec, seed, workers)
    if isinstance(source, tuple) and len(source) in (2, 4):
        keys = ("x", "y") if len(source) == 2 else ("x_train", "y_train", "x_test", "y_test")
        source = dict(zip(keys, source, strict=True))
    if is_dataset(source) and not isinstance(source, Mapping) and not _is_array(source):
        name = type(source).__name__
        return dataset_source({"train": source}, spec, name=name, workers=workers)
    if not isinstance(source, Mapping):
        raise InputError(
            f"data of type {type(source).__name__} cannot be read; give a path, a name, arrays "
            "(x, y) or (x_train, y_train, x_test, y_test), or a map-style data set"
        )
    if source and not any(_is_array(one) for one in source.values()):
        return dataset_source(source, spec, name="the data sets", workers=workers)
    return _in_memory(array_source(source, "the arrays"), spec)


def _read_path(source: str, spec: DataSpec, seed: int, workers: int) -> Source:
    if source == "digits":
        return _in_memory(array_source(digits(), source), spec)
    path = find_named(source) if source in NAMED or is_name(source) else Path(source)
    check_path(path)
    if path.is_dir():
        return folder_source(path, spec, workers=workers)
    if path.suffix == ".npz":
        return _in_memory(array_source(read_npz(path), str(path)), spec)
    return _in_memory(table_source(path, spec, seed=seed), spec)


def _in_memory(source: Source, spec: DataSpec) -> Source:
    if spec.stream:
        raise InputError(
            f"{source.name} cannot stream; data.stream is for folders of images and data sets"
        )
    return source


def _is_array(value: Any) -> bool:
    return hasattr(value, "dtype") or isinstance(value, list | tuple | str)


def _with_pool(built: Built, spec: DataSpec, count: int) -> dict[str, Split]:
    """The splits, with all unlabelled samples in `pool`; new ones get ids from `count` on."""
    splits = dict(built.splits)
    if "pool" in splits:
        splits["pool"] = splits["pool"].without_labels()
    if spec.unlabeled is None:
        return splits
    shape = shape_of(splits["train"])
    pool = load_inputs(spec.unlabeled, built.encode, shape, built.tensors)
    pool = pool.renumbered(count + torch.arange(len(pool)))
    if "pool" in splits:
        pool = _joined(splits["pool"], pool)
    splits["pool"] = pool
    return splits


def _joined(first: Split, second: Split) -> Split:
    if not isinstance(first, ArraySplit) or not isinstance(second, ArraySplit):
        raise InputError(
            "a streamed pool has one source; give either data.unlabeled or data.labels"
        )
    return ArraySplit(torch.cat([first.x, second.x]), None, torch.cat([first.ids, second.ids]))


def shape_of(split: Split) -> tuple[int, ...]:
    """Shape of one sample."""
    return tuple(split.fetch(torch.zeros(1, dtype=torch.int64))["x"].shape[1:])


def statistics(
    train: Split, kind: str
) -> tuple[tuple[float, ...], tuple[float, ...]] | tuple[None, None]:
    """Mean and standard deviation of each channel of uint8 images, in [0, 1]."""
    rows = train.spread(_MANY) if isinstance(train, StreamSplit) else torch.arange(len(train))
    if kind != "image" or train.fetch(rows[:1])["x"].dtype != torch.uint8:
        return None, None
    total, square, count = torch.zeros(3).unbind()
    for some in torch.split(rows, _MANY):
        pixels = train.fetch(some)["x"].double() / 255
        total = total + pixels.sum((0, 2, 3))
        square = square + pixels.square().sum((0, 2, 3))
        count = count + pixels[:, 0].numel()
    mean = total / count
    std = (square / count - mean.square()).clamp_min(0).sqrt()
    return tuple(mean.tolist()), tuple(value or 1.0 for value in std.tolist())


def _facts(found: Source, splits: Mapping[str, Split], spec: DataSpec, seed: int) -> dict[str, Any]:
    """Provenance: what the data was, and how it was split."""
    own = [name for name in ("val", "test") if name in found.labels]
    return {
        "source": found.name,
        "unlabeled": spec.unlabeled,
        "kind": found.kind,
        "sizes": {name: len(split) for name, split in splits.items()},
        "classes": {
            name: _class_counts(split.y, found.classes)
            for name, split in splits.items()
            if split.y is not None
        },
        "digests": {name: split.fingerprint() for name, split in splits.items()},
        "split": {
            "seed": seed,
            "own": own,
            "held_out": {name: getattr(spec, name) for name in ("val", "test") if name not in own},
            "limit": spec.limit,
            "labels": spec.labels,
        },
        "streamed": isinstance(splits["train"], StreamSplit),
    }


def _class_counts(y: Tensor, classes: tuple[str, ...]) -> dict[str, int]:
    counts = torch.bincount(y, minlength=len(classes)).tolist()
    return dict(zip(classes, counts, strict=True))
