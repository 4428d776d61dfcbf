"""A source that has no labels at all: a pool by itself, as those have it who only label it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from limbeck.data.arrays import encoding, kind_of, npz_names, read_npz, samples
from limbeck.data.base import ArraySplit, Data, Split
from limbeck.data.checks import check_finite
from limbeck.data.inputs import array_inputs, load_inputs
from limbeck.data.load import shape_of, statistics
from limbeck.data.tables import read_table
from limbeck.errors import InputError


def has_no_labels(source: Any, label: str = "label") -> bool:
    """Whether a source is samples alone.

    Args:
        source: as for `load_data`.
        label: the label column of a table.
    """
    if isinstance(source, Mapping):
        return set(source) == {"x"}
    if not isinstance(source, str | Path):
        return isinstance(source, Tensor) or type(source).__module__ == "numpy"
    path = Path(source)
    if path.is_dir():
        return not any(part.is_dir() for part in path.iterdir())
    if not path.is_file():
        return False
    if path.suffix == ".npz":
        return npz_names(path) == {"x"}
    return path.suffix in (".csv", ".parquet") and label not in read_table(path)


def load_pool(
    source: Any,
    encode: Mapping[str, Any] | None,
    tensors: Mapping[str, Tensor] | None = None,
    *,
    shape: tuple[int, ...] = (),
    classes: Sequence[str] = (),
) -> Data:
    """Samples without labels as `Data` whose only part to be used is `pool`.

    Args:
        source: one for which `has_no_labels` holds.
        encode: how a training made its samples (`Data.encode`); None: arrays as they are.
        tensors: of that training (`Data.encode_tensors`).
        shape: of its samples.
        classes: its class names.

    Raises:
        InputError: samples that only a training can say how to read, or of another form than its.
    """
    array = source["x"] if isinstance(source, Mapping) else source
    if encode is not None:
        path = isinstance(array, str | Path)
        pool = (
            load_inputs(array, encode, shape, tensors)
            if path
            else array_inputs(array, encode, shape)
        )
        return _data(pool, str(encode["kind"]), encode, tensors or {}, classes, str(source))
    if isinstance(array, str | Path):
        if Path(array).suffix != ".npz":
            raise InputError(
                f"{array} has no labels, and how its samples are read is known only to a run of "
                f"limbeck: give one as the teacher, or {array} as data.unlabeled beside a "
                f"labelled data.source"
            )
        array = read_npz(Path(array))["x"]
    x = samples(array, "x of the pool")
    pool = ArraySplit(x)
    check_finite(pool, "the pool")
    return _data(pool, kind_of(x.shape[1:]), encoding(x), {}, classes, "the pool")


def _data(
    pool: Split,
    kind: str,
    encode: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    classes: Sequence[str],
    name: str,
) -> Data:
    mean, std = statistics(pool, kind)
    return Data(
        name,
        kind,
        *(pool, pool, None, pool),
        tuple(classes),
        shape_of(pool),
        mean,
        std,
        encode=dict(encode),
        encode_tensors=dict(tensors),
    )
