"""Arrays and tensors, in memory or in an `.npz` file."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from limbeck.data.base import ArraySplit
from limbeck.data.labels import number_labels
from limbeck.data.source import SplitSource
from limbeck.errors import InputError, nearest

KEYS = ("x", "y", "x_train", "y_train", "x_val", "y_val", "x_test", "y_test", "classes")
"""The arrays that an `.npz` file or a mapping may hold."""


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an `.npz` file.

    Raises:
        InputError: the file is damaged, no `.npz`, or holds pickled objects, which are never read.
    """
    with _opened(path) as archive:
        return {key: archive[key] for key in archive.files}


def npz_names(path: Path) -> set[str]:
    """The names of the arrays of an `.npz` file, which are not read; raises as `read_npz`."""
    with _opened(path) as archive:
        return set(archive.files)


@contextmanager
def _opened(path: Path) -> Iterator[np.lib.npyio.NpzFile]:
    """The archive, and what goes wrong with it in one sentence."""
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise InputError(f"{path} holds a single array; save x and y together by np.savez")
            yield archive
    except InputError:
        raise
    except ValueError as error:
        if "pickle" not in str(error):
            raise InputError(f"{path} cannot be read as .npz: {error}") from None
        raise InputError(
            f"{path} holds pickled Python objects, which are refused because reading them can run "
            "code; save arrays of numbers or strings"
        ) from None
    except (OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} cannot be read as .npz, it is damaged: {error}") from None


def array_source(arrays: Mapping[str, Any], name: str) -> SplitSource:
    """A labelled source from arrays or tensors named as in `KEYS`.

    Args:
        arrays: `x` and `y`, or `x_train`, `y_train` and perhaps `x_val` ..., `x_test` ...;
            `classes` may name the classes. Images are (N, C, H, W), or uint8 (N, H, W[, C]).
        name: what messages call it.

    Raises:
        InputError: missing arrays, unequal lengths, empty parts, or no numbers in `x`.
    """
    parts = _parts(arrays, name)
    xs = {part: samples(x, f"x of the {part} part of {name}") for part, (x, _) in parts.items()}
    ys = {part: np.asarray(y) for part, (_, y) in parts.items()}
    for part, x in xs.items():
        if len(x) != len(ys[part]):
            raise InputError(
                f"the {part} part of {name} has {len(x)} samples in x but {len(ys[part])} labels "
                "in y; each sample needs one"
            )
        _check_alike(x, xs["train"], part, name)
    labels, classes = number_labels(ys, _class_names(arrays), source=name)
    return SplitSource(
        name=name,
        kind=kind_of(xs["train"].shape[1:]),
        parts={part: ArraySplit(x, labels[part]) for part, x in xs.items()},
        labels=labels,
        classes=classes,
        encode=encoding(xs["train"]),
    )


def _class_names(arrays: Mapping[str, Any]) -> list[str] | None:
    if "classes" not in arrays:
        return None
    return [str(name) for name in np.asarray(arrays["classes"]).astype(str)]


def _parts(arrays: Mapping[str, Any], name: str) -> dict[str, tuple[Any, Any]]:
    """x and y by part."""
    if any(key == "bag" or key.endswith("_bag") for key in arrays):
        raise InputError(f"{name} holds bags of instances; classification needs one label a sample")
    if "x" in arrays:
        if "y" not in arrays:
            raise InputError(
                f"{name} has x but no y: samples without labels are a pool, give them as "
                "data.unlabeled beside a labelled data.source"
            )
        return {"train": (arrays["x"], arrays["y"])}
    parts = {}
    for part in ("train", "val", "test"):
        keys = f"x_{part}", f"y_{part}"
        found = [key for key in keys if key in arrays]
        if len(found) == 1 or (part == "train" and not found):
            missing = next(key for key in keys if key not in arrays)
            raise InputError(
                f"{name} has no array {missing!r}{nearest(missing, arrays)}; it holds "
                f"{', '.join(arrays) or 'nothing'}, expected are x and y, or x_train, y_train and "
                "perhaps the same with val and test"
            )
        if found:
            parts[part] = (arrays[keys[0]], arrays[keys[1]])
    return parts


def samples(x: Any, what: str) -> Tensor:
    """Any array as a tensor of samples.

    uint8 stays; images of it become (N, C, H, W). Floats become float32; integers of 32 and 64
    bits, such as token ids, int64; smaller ones and booleans float32.

    Raises:
        InputError: no samples, no axis beside that of the samples, or no numbers.
    """
    tensor = x.detach().cpu() if isinstance(x, Tensor) else _tensor(np.asarray(x), what)
    if tensor.ndim < 2:
        raise InputError(
            f"{what} has shape {tuple(tensor.shape)}; samples need an axis of their own, "
            "for example x.reshape(-1, 1)"
        )
    if not tensor.numel():
        raise InputError(f"{what} is empty (shape {tuple(tensor.shape)})")
    if tensor.dtype == torch.uint8:
        return _channels_first(tensor)
    if tensor.dtype in (torch.int32, torch.int64):
        return tensor.long()
    return tensor.float()


def _tensor(x: NDArray[Any], what: str) -> Tensor:
    if x.dtype.kind not in "buif":
        raise InputError(f"{what} holds {x.dtype} values; samples must be numbers")
    if x.dtype.kind == "u" and x.dtype != np.uint8:
        x = x.astype(np.int64 if x.dtype.itemsize > 2 else np.float32)
    return torch.from_numpy(np.ascontiguousarray(x))


def _channels_first(x: Tensor) -> Tensor:
    """uint8 images as (N, C, H, W), from (N, H, W) and (N, H, W, C) too."""
    if x.ndim == 3:
        return x[:, None]
    if x.ndim == 4 and x.shape[-1] in (1, 3, 4) and x.shape[1] not in (1, 3, 4):
        return x.permute(0, 3, 1, 2).contiguous()
    return x


def kind_of(shape: torch.Size | tuple[int, ...]) -> str:
    """What samples of this shape are: with three axes, images."""
    return "image" if len(shape) == 3 else "array"


def encoding(x: Tensor) -> dict[str, Any]:
    """The state by which other files become samples like `x`."""
    state: dict[str, Any] = {
        "kind": kind_of(x.shape[1:]),
        "dtype": str(x.dtype).removeprefix("torch."),
    }
    if x.ndim == 4:
        state |= {"channels": x.shape[1], "size": list(x.shape[2:])}
        state["unit"] = x.dtype == torch.uint8 or bool(x.min() >= 0 and x.max() <= 1)
    return state


def _check_alike(x: Tensor, train: Tensor, part: str, name: str) -> None:
    if x.shape[1:] != train.shape[1:] or x.dtype != train.dtype:
        raise InputError(
            f"samples of the {part} part of {name} are {x.dtype} of shape {tuple(x.shape[1:])}, "
            f"those of its train part {train.dtype} of shape {tuple(train.shape[1:])}"
        )
