"""Tables and texts: `.csv` and `.parquet` files with a label column."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limbeck.data.base import ArraySplit, Split
from limbeck.data.columns import Column, Table, as_words, encode_columns, fit_columns
from limbeck.data.labels import name_labels
from limbeck.data.source import PARTS, Built, Source
from limbeck.data.splits import Places
from limbeck.data.texts import encode_texts, fit_texts
from limbeck.errors import InputError, nearest
from limbeck.recipe.spec import DataSpec


def read_table(path: Path) -> Table:
    """The columns of a `.csv` (comma, header line, UTF-8) or `.parquet` file.

    Raises:
        InputError: the file is damaged, has ragged rows or no rows.
    """
    table = _read_csv(path) if path.suffix == ".csv" else _read_parquet(path)
    if not table or not len(next(iter(table.values()))):
        raise InputError(f"{path} is empty: it has no rows")
    return table


def table_source(path: Path, spec: DataSpec, *, seed: int) -> TableSource:
    """A labelled source from a table; see `limbeck.recipe.spec.DataSpec` for the columns.

    Raises:
        InputError: no label column, an unknown part, or no training rows.
    """
    table = read_table(path)
    label = _column(table, spec.label, path, "--data.label")
    parts = _parts(table.pop("split", None), len(label), path)
    words = _class_names(label, spec.label, path)
    raw = {part: [words[row] for row in rows.tolist()] for part, rows in parts.items()}
    labels, classes = name_labels(raw, source=str(path))
    del table[spec.label]
    text = spec.text or ("text" if "text" in table else None)
    if text is not None:
        table = {text: _column(table, text, path, "--data.text")}
    if not table:
        raise InputError(f"{path} has no column beside {spec.label!r} to learn from")
    return TableSource(
        name=str(path),
        kind="table" if text is None else "text",
        labels=labels,
        classes=classes,
        table=table,
        parts=parts,
        spec=spec,
        seed=seed,
    )


@dataclass(frozen=True)
class TableSource(Source):
    """Rows of a table; how they become vectors is learned from those that train.

    Training rows without a label, and rows that `data.labels` turns into pool, count among
    these; validation and test rows never do.
    """

    name: str
    kind: str
    labels: Mapping[str, Tensor]
    classes: tuple[str, ...]
    table: Table
    parts: Mapping[str, Tensor]
    spec: DataSpec
    seed: int

    def build(self, places: Mapping[str, Places]) -> Built:  # noqa: D102
        rows = {name: self.parts[at.part][at.rows] for name, at in places.items()}
        seen = torch.cat([rows[name] for name in ("train", "pool") if name in rows])
        fitting = _take(self.table, seen.sort().values)
        encode: dict[str, Any]
        tensors: dict[str, Tensor] = {}
        if self.kind == "text":
            column, values = next(iter(fitting.items()))
            state, tensors = fit_texts(_as_texts(values), self.spec, seed=self.seed)
            encode = {"kind": "text", "column": column, "text": state}
        else:
            encode = {"kind": "table", "columns": fit_columns(fitting)}
        x = encode_table(self.table, encode, tensors, source=self.name)
        splits: dict[str, Split] = {
            name: ArraySplit(x[rows[name]], self.labels[at.part][at.rows], at.rows)
            for name, at in places.items()
        }
        return Built(splits, encode, tensors)


def encode_table(
    table: Table, state: Mapping[str, Any], tensors: Mapping[str, Tensor], *, source: str
) -> Tensor:
    """Rows of a table as samples, shape (N, F), by the state of `Data.encode`."""
    if state["kind"] == "text":
        column = _column(table, state["column"], source, "--data.text")
        return encode_texts(_as_texts(column), state["text"], tensors)
    for column in state["columns"]:
        _column(table, column["name"], source, "the column that the training had")
    return encode_columns(table, state["columns"], source=source)


def _column(table: Table, name: str, source: Path | str, how: str) -> Column:
    if name not in table:
        raise InputError(
            f"{source} has no column {name!r}{nearest(name, table)} ({how}); it has "
            f"{', '.join(table)}"
        )
    return table[name]


def _class_names(column: Column, name: str, path: Path) -> list[str | None]:
    if isinstance(column, np.ndarray) and (column[~np.isnan(column)] % 1).any():
        raise InputError(
            f"label column {name!r} of {path} holds fractional numbers; classes are whole numbers "
            "or words"
        )
    return as_words(column)


def _parts(column: Column | None, count: int, path: Path) -> dict[str, Tensor]:
    """Rows of each part, by the column `split`; all are `train` where there is none."""
    if column is None:
        return {"train": torch.arange(count)}
    rows: dict[str, list[int]] = {"train": []}
    for row, value in enumerate(as_words(column)):
        part = PARTS.get(value or "")
        if part is None:
            raise InputError(
                f"row {row} of {path} has split {value!r}{nearest(str(value), PARTS)}; "
                "expected are train, val and test"
            )
        rows.setdefault(part, []).append(row)
    if not rows["train"]:
        raise InputError(f"the train part of {path} is empty: no row has split 'train'")
    return {part: torch.tensor(found) for part, found in rows.items()}


def _take(table: Table, rows: Tensor) -> Table:
    def take(column: Column) -> Column:
        if isinstance(column, np.ndarray):
            taken: Column = column[rows.numpy()]
            return taken
        return [column[row] for row in rows.tolist()]

    return {name: take(column) for name, column in table.items()}


def _as_texts(column: Column) -> list[str]:
    return [word or "" for word in as_words(column)]


def _read_csv(path: Path) -> Table:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            rows = [row for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as UTF-8 .csv: {error}") from None
    for number, row in enumerate(rows):
        if len(row) != len(header):
            raise InputError(
                f"row {number} of {path} has {len(row)} cells, the header {len(header)}"
            )
    if len(set(header)) < len(header):
        raise InputError(f"{path} names a column twice in its header: {', '.join(header)}")
    columns = zip(*rows, strict=True) if rows else ((),) * len(header)
    return {name: list(cells) for name, cells in zip(header, columns, strict=True)}


def _read_parquet(path: Path) -> Table:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise InputError(f"{path} needs pyarrow: pip install 'limbeck[arrow]'") from None
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read as .parquet: {error}") from None
    return {name: _from_arrow(table[name], name, path) for name in table.column_names}


def _from_arrow(column: Any, name: str, path: Path) -> Column:
    import pyarrow as pa

    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        words: list[str | None] = column.to_pylist()
        return words
    if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        values: Iterable[Any] = column.to_pylist()
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    raise InputError(f"column {name!r} of {path} holds {kind}; expected are numbers or strings")
