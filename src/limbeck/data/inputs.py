"""Samples without labels, made exactly as those of the training: pools, and what to predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limbeck.data.arrays import read_npz, samples
from limbeck.data.base import ArraySplit, Split
from limbeck.data.checks import check_finite
from limbeck.data.columns import as_words
from limbeck.data.images import folder_inputs, image_files
from limbeck.data.ops import to_float
from limbeck.data.paths import check_path
from limbeck.data.tables import encode_table, read_table
from limbeck.errors import InputError, nearest


def load_inputs(
    path: str | Path,
    encode: Mapping[str, Any],
    shape: tuple[int, ...],
    tensors: Mapping[str, Tensor] | None = None,
) -> Split:
    """Raw samples in the form that a model was trained on.

    Args:
        path: an `.npz` with `x`, a table whose label column may be missing, or a folder of
            images, nested or not (in the order of `limbeck.data.images.image_files`).
        encode: of the training data (`Data.encode`).
        shape: of one sample (`Data.shape`).
        tensors: of the training data (`Data.encode_tensors`).

    Returns:
        A split without labels; ids are positions.

    Raises:
        InputError: no such file, another kind of data, another shape, NaN.
    """
    path = Path(path)
    check_path(path)
    return _checked(_read(path, encode, tensors or {}), shape, path)


def array_inputs(x: Any, encode: Mapping[str, Any], shape: tuple[int, ...]) -> Split:
    """The same for an array or tensor of samples."""
    what = "the array"
    return _checked(_from_array(x, encode, what), shape, what)


def _checked(split: Split, shape: tuple[int, ...], what: Path | str) -> Split:
    found = tuple(split.fetch(torch.zeros(1, dtype=torch.int64))["x"].shape[1:])
    if found != tuple(shape):
        raise InputError(f"samples of {what} have shape {found}, those of the training {shape}")
    check_finite(split, f"{what}")
    return split


def _read(path: Path, encode: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Split:
    kind = encode.get("kind")
    if path.is_dir() and kind == "image":
        return _like(folder_inputs(path, dict(encode)), encode, path)
    if path.suffix == ".npz" and kind in ("image", "array"):
        arrays = read_npz(path)
        if "x" not in arrays:
            raise InputError(f"{path} has no array 'x'; it holds {', '.join(arrays) or 'nothing'}")
        return _from_array(arrays["x"], encode, f"x of {path}")
    if path.suffix in (".csv", ".parquet") and kind in ("table", "text"):
        table = read_table(path)
        return ArraySplit(encode_table(table, encode, tensors, source=str(path)))
    wanted = {"image": "images (.npz or a folder)", "array": "arrays (.npz)"}
    raise InputError(
        f"{path} is another kind of data than the training had: "
        f"{wanted.get(str(kind), 'a table (.csv or .parquet)')}"
    )


def _from_array(array: Any, encode: Mapping[str, Any], what: str) -> Split:
    x = samples(array, what)
    if x.ndim == 3 and encode.get("channels") == 1:
        # (N, H, W), as images of one channel often lie about.
        x = x[:, None]
    return _like(ArraySplit(x), encode, what)


def _like(split: Split, encode: Mapping[str, Any], what: Path | str) -> Split:
    """Samples in the training's dtype; bytes become floats only where these were in [0, 1]."""
    found = split.fetch(torch.zeros(1, dtype=torch.int64))["x"].dtype
    wanted = encode["dtype"]
    if found == getattr(torch, wanted):
        return split
    if found == torch.uint8 and encode.get("unit") and isinstance(split, ArraySplit):
        return ArraySplit(to_float(split.x), split.y, split.ids)
    raise InputError(
        f"samples of {what} are {str(found).removeprefix('torch.')}, those of the training were "
        f"{wanted}: bring them in the same scaling"
    )


def load_labels(path: str | Path, classes: Sequence[str], label: str = "label") -> Tensor:
    """The labels that go with `load_inputs(path)`, as positions in `classes`.

    Args:
        path: an `.npz` with `y`, a table with a label column, or a folder with a folder a class.
        classes: class names in the order of the model's outputs.
        label: the label column of a table.

    Raises:
        InputError: no labels there, or one that the model does not know.
    """
    path = Path(path)
    names = _label_names(path, label)
    known = {name: number for number, name in enumerate(classes)}
    strange = sorted(set(names) - set(known))
    if strange:
        hint = nearest(strange[0], known)
        raise InputError(
            f"{path} has label {strange[0]!r}, which the model does not know{hint}; it knows "
            f"{', '.join(classes[:10])}"
        )
    return torch.tensor([known[name] for name in names])


def _label_names(path: Path, label: str) -> list[str]:
    if path.is_dir():
        return [file.relative_to(path).parts[0] for file in image_files(path)]
    if path.suffix == ".npz":
        arrays = read_npz(path)
        if "y" not in arrays:
            raise InputError(f"{path} has no array 'y' to evaluate against")
        return [str(value) for value in arrays["y"].tolist()]
    table = read_table(path)
    if label not in table:
        raise InputError(f"{path} has no column {label!r}{nearest(label, table)} (--data.label)")
    return [word or "" for word in as_words(table[label])]
