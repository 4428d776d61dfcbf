"""Labels as users write them, numbers or names, become class numbers 0, 1, ... and class names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from limbeck.data.splits import UNLABELED
from limbeck.errors import InputError, nearest

Labels = tuple[dict[str, Tensor], tuple[str, ...]]
"""Class number of every sample, by part; and the class names."""


def number_labels(
    raw: Mapping[str, NDArray[Any]], classes: Sequence[str] | None, *, source: str
) -> Labels:
    """Labels of arrays: class numbers as they are, or names.

    Args:
        raw: labels by part, shape (N,): integers 0 ... C - 1, or strings.
        classes: class names in label order, where the source says them.
        source: what messages call the data.

    Raises:
        InputError: another dtype or shape, negative or missing class numbers, names that the
            training part lacks, or a single class.
    """
    plain = {part: _flat(y, f"y of the {part} part of {source}") for part, y in raw.items()}
    if any(y.dtype.kind in "US" for y in plain.values()):
        named = {part: y.astype(str).tolist() for part, y in plain.items()}
        return name_labels(named, source=source)
    numbers = {part: _whole(y, f"y of the {part} part of {source}") for part, y in plain.items()}
    names = _number_names(numbers["train"], classes, source)
    for part, y in numbers.items():
        if y.size and y.max() >= len(names):
            raise InputError(
                f"the {part} part of {source} has label {y.max()}, but the training part "
                f"ends at {len(names) - 1}"
            )
    return {part: torch.from_numpy(y) for part, y in numbers.items()}, names


def name_labels(raw: Mapping[str, Sequence[str | None]], *, source: str) -> Labels:
    """Labels of tables and folders: any strings, sorted (numbers by value).

    Args:
        raw: labels by part; None or "" in the training part: a sample of the pool.
        source: what messages call the data.

    Raises:
        InputError: a label that the training part lacks, no label outside it, or one class.
    """
    names = tuple(sorted({label for label in raw["train"] if label}, key=_sort_key))
    _check_several(names, source)
    number = {name: place for place, name in enumerate(names)}
    labels = {}
    for part, values in raw.items():
        for row, label in enumerate(values):
            if label not in number and (label or part != "train"):
                raise InputError(_stranger(label, row, part, names, source))
        numbers = [number[label] if label else UNLABELED for label in values]
        labels[part] = torch.tensor(numbers, dtype=torch.int64)
    return labels, names


def _stranger(label: str | None, row: int, part: str, names: tuple[str, ...], source: str) -> str:
    where = f"row {row} of the {part} part of {source}"
    if not label:
        return f"{where} has no label; only training rows may lack one"
    return f"{where} has label {label!r}{nearest(label, names)}, which no training row has"


def _sort_key(name: str) -> tuple[float, str]:
    try:
        return float(name), name
    except ValueError:
        return float("inf"), name


def _flat(y: NDArray[Any], what: str) -> NDArray[Any]:
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise InputError(
            f"{what} has shape {y.shape}, but labels must be one class number a sample; "
            "for one-hot rows take y.argmax(1)"
        )
    return y


def _whole(y: NDArray[Any], what: str) -> NDArray[np.int64]:
    if y.dtype.kind not in "biuf" or (y.dtype.kind == "f" and not np.array_equal(y, np.floor(y))):
        raise InputError(
            f"{what} holds {y.dtype} values that are no class numbers; "
            "give integers 0, 1, ... or names"
        )
    if y.size and y.min() < 0:
        raise InputError(
            f"{what} holds the negative label {int(y.min())}; number classes from 0, and bring "
            "unlabelled samples as a pool (data.unlabeled)"
        )
    return y.astype(np.int64)


def _number_names(
    y: NDArray[np.int64], classes: Sequence[str] | None, source: str
) -> tuple[str, ...]:
    """Names of the classes; without given ones every number from 0 on must occur."""
    seen = np.unique(y)
    _check_several(seen.tolist(), source)
    if classes is not None:
        if seen[-1] >= len(classes):
            raise InputError(f"{source} has label {seen[-1]}, but names {len(classes)} classes")
        return tuple(classes)
    gaps = np.flatnonzero(seen != np.arange(len(seen)))
    if len(gaps):
        raise InputError(
            f"no training sample of {source} has label {gaps[0]}, though labels run up to "
            f"{seen[-1]}; number classes 0, 1, ... without gaps, or name them all in `classes`"
        )
    return tuple(map(str, seen))


def _check_several(classes: Sequence[Any], source: str) -> None:
    if len(classes) < 2:
        only = f" ({classes[0]!r})" if classes else ""
        raise InputError(
            f"the training part of {source} has {len(classes) or 'no'} class{only}, "
            "but a classifier needs at least 2"
        )
