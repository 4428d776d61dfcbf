"""Shard files: safetensors of known shapes, written row by row and read without copying."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from limbeck.data.base import Record
from limbeck.errors import InputError, RunError

_NAMES = {
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
}

Form = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
"""Dtype and shape of one row of every tensor."""


def form_of(record: Record) -> Form:
    """The form of the rows of a record."""
    return {key: (value.dtype, tuple(value.shape[1:])) for key, value in record.items()}


def row_bytes(form: Form) -> int:
    """Bytes of one row over all tensors."""
    return sum(dtype.itemsize * _count(shape) for dtype, shape in form.values())


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


class ShardWriter:
    """A safetensors file that is filled from records, under a temporary name until it is whole.

    Args:
        path: where it will stand.
        form: of its rows.
        rows: how many there will be.
    """

    def __init__(self, path: Path, form: Form, rows: int) -> None:
        self.path = path
        self._temporary = path.with_name(f".{path.name}.part")
        self._places: dict[str, int] = {}
        # Wide elements first: so all of them are aligned, which reading without a copy needs.
        order = sorted(form, key=lambda key: (-form[key][0].itemsize, key))
        header: dict[str, object] = {}
        place = 0
        for key in order:
            dtype, shape = form[key]
            size = rows * dtype.itemsize * _count(shape)
            offsets = [place, place + size]
            header[key] = {"dtype": _NAMES[dtype], "shape": [rows, *shape], "data_offsets": offsets}
            self._places[key] = place
            place += size
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self._file = self._temporary.open("wb")
        self._file.write(struct.pack("<Q", len(text)) + text)
        self._start = 8 + len(text)
        self._file.truncate(self._start + place)

    def add(self, record: Record) -> None:
        """Append rows."""
        for key, value in record.items():
            content = value.contiguous().view(torch.uint8).numpy().data
            self._file.seek(self._start + self._places[key])
            self._places[key] += self._file.write(content)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._file.flush()
                os.fsync(self._file.fileno())
                self._file.close()
                os.replace(self._temporary, self.path)
        finally:
            self._file.close()
            with contextlib.suppress(OSError):
                self._temporary.unlink()


def write_rows(path: Path, record: Record) -> None:
    """Write one record as a file of its own, whole or not at all.

    Raises:
        RunError: the disk is full or not writable.
    """
    try:
        with ShardWriter(path, form_of(record), length(record)) as shard:
            shard.add(record)
    except OSError as error:
        raise full_disk(path, error) from None


def full_disk(path: Path, error: OSError) -> RunError:
    """What a failed write means to the user."""
    return RunError(
        f"cannot write {path}: {error.strerror or error}; what is labelled so far is kept, make "
        f"room and go on with --resume {path.parent}"
    )


def read_shard(path: Path) -> Record:
    """All tensors of a shard, mapped from the file: no byte is read before it is looked at.

    Raises:
        InputError: no such file, or a damaged one.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise InputError(
            f"the shard {path} is missing; copy the store's folder whole, or label again"
        ) from None
    except (OSError, SafetensorError, ValueError) as error:
        raise InputError(f"the shard {path} is damaged ({error}); label again") from None


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits.

    Raises:
        InputError: no such file.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; label again") from None


def joined(records: list[Record]) -> Record:
    """Records one after another."""
    if len(records) == 1:
        return records[0]
    return {key: torch.cat([record[key] for record in records]) for key in records[0]}


def rows_of(record: Record, begin: int, end: int) -> Record:
    """Some rows of a record."""
    return {key: value[begin:end] for key, value in record.items()}


def length(record: Mapping[str, Tensor]) -> int:
    """Rows of a record."""
    return len(next(iter(record.values())))
