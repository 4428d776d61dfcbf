"""Outputs from elsewhere: logits, probabilities, top scores or hard labels by sample id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limbeck.data.arrays import read_npz
from limbeck.data.base import Record, Split
from limbeck.data.columns import as_words
from limbeck.data.paths import SUFFIXES
from limbeck.data.tables import read_table
from limbeck.errors import InputError
from limbeck.store.packing import unpack
from limbeck.store.shards import file_sha256

_FORMS = (
    "logits; probabilities; labels; or values and indices (largest first, with rest, the log of "
    "the probability of all others)"
)
_LEAST = 1e-12
"""A probability of zero has no logit; this is the smallest that is told apart from it."""


class Outside:
    """A teacher that answers from a file.

    Args:
        path: `.npz` with `id` and one of `logits`, `probabilities` (N, C), `labels` (N,), or
            `values` and `indices` (N, K); or a `.csv` or `.parquet` with a column `id` and a column
            a class (`p_NAME` or `logit_NAME`), or `label`. `split` may say which part of the data
            a row belongs to; without it rows are training or pool samples.
        classes: class names of the data.

    Raises:
        InputError: the file cannot be read as any of these, or ids come twice.
    """

    def __init__(self, path: Path, classes: Sequence[str]) -> None:
        if path.suffix not in SUFFIXES:
            raise InputError(
                f"outputs are taken from .npz, .csv and .parquet files, not from {path}"
            )
        self.path = path
        self.name = str(path)
        self.digest = file_sha256(path)
        arrays = read_npz(path) if path.suffix == ".npz" else _columns(path, classes)
        self._logits = _logits(arrays, classes, path)
        ids = _ids(_need(arrays, "id", path), path)
        if len(ids) != len(self._logits):
            raise InputError(f"{path} has {len(ids)} ids for {len(self._logits)} outputs")
        splits = arrays.get("split")
        names = ["train"] * len(ids) if splits is None else [str(name) for name in splits]
        self._places = {
            (_part(name), ident): row
            for row, (name, ident) in enumerate(zip(names, ids.tolist(), strict=True))
        }
        if len(self._places) != len(ids):
            raise InputError(f"{path} has an id more than once; each sample has one output")

    def covers(self, splits: Mapping[str, Split]) -> dict[str, Split]:
        """The samples of each split that the file speaks of.

        Raises:
            InputError: none of them.
        """
        found = {}
        for name, split in splits.items():
            part = _part(name)
            held = torch.tensor([(part, ident) in self._places for ident in split.ids.tolist()])
            if held.any():
                found[name] = split.select(held.nonzero().squeeze(1))
        if not found:
            raise InputError(
                f"none of the ids in {self.path} is a sample of the data; an id is the position "
                f"of a sample in the source's training part, counted from 0"
            )
        return found

    def answer(self, part: str, batch: Record) -> Record:
        """The logits of a batch of samples."""
        rows = [self._places[_part(part), ident] for ident in batch["index"].tolist()]
        return {"logits": self._logits[rows]}


def _part(name: str) -> str:
    """Training and pool samples share one numbering."""
    return "train" if name == "pool" else name


def _need(arrays: Mapping[str, Any], key: str, path: Path) -> Any:
    if key not in arrays:
        raise InputError(
            f"{path} has no {key!r}; it holds {', '.join(arrays) or 'nothing'}, expected are id "
            f"and one of: {_FORMS}"
        )
    return arrays[key]


def _logits(arrays: Mapping[str, Any], classes: Sequence[str], path: Path) -> Tensor:
    """Any of the forms as logits, float32 of shape (N, C)."""
    count = len(classes)
    if "logits" in arrays:
        return _wide(arrays["logits"], count, "logits", path)
    if "probabilities" in arrays:
        shares = _wide(arrays["probabilities"], count, "probabilities", path)
        if (shares < 0).any() or ((shares.sum(-1) - 1).abs() > 0.02).any():
            raise InputError(f"probabilities in {path} must be positive and sum to 1 in each row")
        return shares.clamp_min(_LEAST).log()
    if "values" in arrays and "indices" in arrays:
        values = torch.as_tensor(np.asarray(arrays["values"])).float()
        indices = torch.as_tensor(np.asarray(arrays["indices"]).astype(np.int64))
        if indices.shape != values.shape or indices.min() < 0 or indices.max() >= count:
            raise InputError(f"indices in {path} must name {count} classes, one for each value")
        least = torch.full((len(values),), float(np.log(_LEAST)))
        rest = torch.as_tensor(arrays["rest"]).float() if "rest" in arrays else least
        return unpack({"values": values, "indices": indices, "rest": rest}, count)
    labels = _numbers(_need(arrays, "labels", path), classes, path)
    shares = torch.full((len(labels), count), _LEAST)
    return shares.scatter(1, labels[:, None], 1.0).log()


def _ids(values: Any, path: Path) -> Tensor:
    try:
        return torch.tensor([int(value) for value in np.asarray(values).tolist()])
    except ValueError as error:
        raise InputError(f"an id in {path} is no whole number: {error}") from None


def _wide(array: Any, count: int, what: str, path: Path) -> Tensor:
    values = torch.as_tensor(np.asarray(array)).float()
    if values.ndim != 2 or values.shape[1] != count:
        raise InputError(
            f"{what} in {path} have shape {tuple(values.shape)}, expected is (samples, {count})"
        )
    return values


def _numbers(labels: Any, classes: Sequence[str], path: Path) -> Tensor:
    known = {name: number for number, name in enumerate(classes)}
    numbers = [known.get(str(label), -1) for label in np.asarray(labels).tolist()]
    if -1 in numbers:
        strange = np.asarray(labels).tolist()[numbers.index(-1)]
        raise InputError(
            f"{path} has label {strange!r}, no class of the data ({', '.join(classes[:10])})"
        )
    return torch.tensor(numbers)


def _columns(path: Path, classes: Sequence[str]) -> dict[str, Any]:
    """The columns of a table as the arrays of an `.npz`."""
    table = read_table(path)
    arrays: dict[str, Any] = {}
    for key, name in (("id", "id"), ("split", "split"), ("labels", "label")):
        if name in table:
            arrays[key] = np.array(as_words(table[name]))
    for key, prefix in (("probabilities", "p_"), ("logits", "logit_")):
        wanted = [f"{prefix}{name}" for name in classes]
        if all(name in table for name in wanted):
            columns = [np.asarray(table[name], dtype=np.float64) for name in wanted]
            arrays[key] = np.stack(columns, 1)
    return arrays
