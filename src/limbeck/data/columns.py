"""Columns of a table become numbers: standardised, or one column a category."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from limbeck.errors import InputError

Column = NDArray[np.float64] | list[str | None]
"""Numbers (NaN where missing), or words (None where missing)."""

Table = dict[str, Column]
"""Columns of equal length, by name."""

MISSING = frozenset(("", "?", "na", "n/a", "nan", "null", "none"))
"""Words that stand for no value in feature columns, in any case."""

_CATEGORIES = 100
"""Categories a column keeps, the most frequent; rarer ones share the slot of unknown values."""


def is_missing(word: str | None) -> bool:
    """Whether a cell stands for no value."""
    return word is None or word.strip().lower() in MISSING


def as_words(column: Column) -> list[str | None]:
    """Numbers as words, whole ones without a decimal point."""
    if isinstance(column, list):
        return column
    return [None if np.isnan(value) else f"{value:.15g}" for value in column.tolist()]


def fit_columns(table: Table) -> list[dict[str, Any]]:
    """Learn from the training rows how columns are encoded.

    Words that all read as numbers, missing ones apart, are numbers.

    Returns:
        JSON-ready, one a column: `number` with mean, standard deviation and whether a further
        column tells missing values apart, or `category` with its values.
    """
    return [{"name": name} | _fit(column) for name, column in table.items()]


def _fit(column: Column) -> dict[str, Any]:
    try:
        numbers = column if isinstance(column, np.ndarray) else _parse(column)
    except ValueError:
        return _fit_words(as_words(column))
    return _fit_numbers(numbers) if np.isfinite(numbers).any() else _fit_words(as_words(column))


def _parse(column: Sequence[str | None]) -> NDArray[np.float64]:
    return np.array([np.nan if is_missing(word) else float(word or "") for word in column])


def _fit_numbers(column: NDArray[np.float64]) -> dict[str, Any]:
    known = column[np.isfinite(column)]
    missing = bool(np.isnan(column).any())
    std = float(known.std()) or 1.0
    return {"type": "number", "mean": float(known.mean()), "std": std, "missing": missing}


def _fit_words(column: Sequence[str | None]) -> dict[str, Any]:
    counts = Counter(word for word in column if word is not None and not is_missing(word))
    frequent = sorted((-count, word) for word, count in counts.items())
    return {"type": "category", "values": sorted(word for _, word in frequent[:_CATEGORIES])}


def encode_columns(table: Table, state: Sequence[Mapping[str, Any]], *, source: str) -> Tensor:
    """Rows as float32 vectors of shape (N, F).

    A number becomes (value - mean) / std, 0 where missing, followed by a 0/1 column for
    "missing" where the training rows had missing ones. A category becomes one 0/1 column a
    value, then one for values unknown or missing.

    Args:
        table: has all columns that `state` names.
        state: from `fit_columns`.
        source: what messages call the table.

    Raises:
        InputError: a word in a column of numbers, or an infinite number.
    """
    blocks = []
    for form in state:
        column = table[form["name"]]
        if form["type"] == "category":
            blocks.append(_one_hot(as_words(column), form["values"]))
        else:
            numbers = _as_numbers(column, form["name"], source)
            blocks.append(_standardized(numbers, form))
    return torch.from_numpy(np.concatenate(blocks, axis=1))


def _standardized(column: NDArray[np.float64], form: Mapping[str, Any]) -> NDArray[np.float32]:
    missing = np.isnan(column)
    values = np.where(missing, 0.0, (column - form["mean"]) / form["std"])
    parts = [values, missing] if form["missing"] else [values]
    return np.stack(parts, axis=1).astype(np.float32)


def _one_hot(column: Sequence[str | None], values: Sequence[str]) -> NDArray[np.float32]:
    slot = {value: place for place, value in enumerate(values)}
    places = np.array([slot.get(word or "", len(values)) for word in column], dtype=np.int64)
    hot = np.zeros((len(places), len(values) + 1), dtype=np.float32)
    hot[np.arange(len(places)), places] = 1
    return hot


def _as_numbers(column: Column, name: str, source: str) -> NDArray[np.float64]:
    if isinstance(column, list):
        column = np.array([_number(word, name, row, source) for row, word in enumerate(column)])
    infinite = np.flatnonzero(np.isinf(column))
    if len(infinite):
        raise InputError(
            f"column {name!r} of {source} holds {len(infinite)} infinite "
            f"value{'s' * (len(infinite) > 1)}, the first in row {infinite[0]}; remove it, or "
            "leave the cell empty for a missing value"
        )
    return column


def _number(word: str | None, name: str, row: int, source: str) -> float:
    if word is None or is_missing(word):
        return float("nan")
    try:
        return float(word)
    except ValueError:
        raise InputError(
            f"row {row} of {source} has {word!r} in column {name!r}, which held numbers in training"
        ) from None
