"""Folders of images: a class a folder, perhaps below `train`, `val` and `test`."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limbeck.data.base import Split
from limbeck.data.labels import name_labels
from limbeck.data.source import PARTS, SplitSource
from limbeck.data.stream import THREADS, Samples, read_samples, streams
from limbeck.errors import InputError
from limbeck.recipe.spec import DataSpec

SUFFIXES = frozenset(
    [".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"]
)
"""File names that count as images; other files are passed over."""


@dataclass(frozen=True)
class ImageFiles(Samples):
    """Image files, decoded when read: uint8 of shape (channels, *size)."""

    paths: Sequence[Path]
    channels: int
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, position: int) -> Tensor:  # noqa: D102
        from PIL import Image

        path = self.paths[position]
        try:
            with Image.open(path) as image:
                plain = image.convert("L" if self.channels == 1 else "RGB")
                height, width = self.size
                if plain.size != (width, height):
                    plain = plain.resize((width, height), Image.Resampling.BILINEAR)
                pixels = torch.from_numpy(np.array(plain))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise InputError(_unreadable(path, error)) from None
        return pixels[None] if self.channels == 1 else pixels.permute(2, 0, 1).contiguous()

    def describe(self, position: int) -> str:  # noqa: D102
        return str(self.paths[position])


def image_files(folder: Path) -> list[Path]:
    """All image files below `folder`, sorted: the order of samples in predictions."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def folder_source(root: Path, spec: DataSpec, *, workers: int) -> SplitSource:
    """A labelled source from `root/CLASS/...`, or `root/train/CLASS/...` and so on.

    Args:
        root: the folder.
        spec: its `size` (without one all images must agree) and `stream`.
        workers: threads that read streamed batches.

    Raises:
        InputError: no images, images outside class folders, or an unreadable one.
    """
    files = {part: image_files(folder) for part, folder in _part_folders(root).items()}
    names = {
        part: [_class_of(path, folder) for path in files[part]]
        for part, folder in _part_folders(root).items()
    }
    for part, found in files.items():
        if not found:
            raise InputError(f"the {part} part of {root} is empty: no image file in it")
    labels, classes = name_labels(names, source=str(root))
    channels, size = _common_form([path for found in files.values() for path in found], spec.size)
    parts: dict[str, Split] = {}
    total = sum(map(len, files.values())) * channels * size[0] * size[1]
    stream = streams(spec.stream, total)
    for part, found in files.items():
        parts[part] = read_samples(
            ImageFiles(found, channels, size), labels[part], stream=stream, workers=workers
        )
    return SplitSource(
        name=str(root),
        kind="image",
        parts=parts,
        labels=labels,
        classes=classes,
        encode=_encoding(channels, size),
    )


def folder_inputs(root: Path, state: dict[str, Any]) -> Split:
    """All images below `root`, in the form that `state` (from `Data.encode`) asks for."""
    paths = image_files(root)
    if not paths:
        raise InputError(f"{root} is empty: no image file in it")
    channels, (height, width) = state["channels"], state["size"]
    total = len(paths) * channels * height * width
    files = ImageFiles(paths, channels, (height, width))
    return read_samples(files, stream=streams(None, total), workers=THREADS)


def _encoding(channels: int, size: tuple[int, int]) -> dict[str, Any]:
    form = {"channels": channels, "size": list(size), "unit": True}
    return {"kind": "image", "dtype": "uint8"} | form


def _part_folders(root: Path) -> dict[str, Path]:
    """The folders `train`, `val`, `test` of `root`; `root` itself where there is no `train`."""
    if not (root / "train").is_dir():
        return {"train": root}
    found = {
        PARTS[path.name]: path
        for path in sorted(root.iterdir())
        if path.is_dir() and path.name in PARTS
    }
    return {part: found[part] for part in ("train", "val", "test") if part in found}


def _class_of(path: Path, folder: Path) -> str:
    inside = path.relative_to(folder).parts
    if len(inside) < 2:
        raise InputError(
            f"{path} lies outside any class; put images into one folder a class: "
            f"{folder / 'CLASS' / path.name}"
        )
    return inside[0]


def _common_form(paths: Sequence[Path], size: int | None) -> tuple[int, tuple[int, int]]:
    """Channels and (height, width) of all images, from their headers."""
    with ThreadPoolExecutor(THREADS) as threads:
        headers = list(threads.map(_header, paths))
    channels = 1 if all(mode in ("1", "L") for mode, _ in headers) else 3
    if size is not None:
        return channels, (size, size)
    first = headers[0][1]
    for path, (_, other) in zip(paths, headers, strict=True):
        if other != first:
            raise InputError(
                f"images differ in size: {paths[0]} is {first[0]} x {first[1]}, {path} is "
                f"{other[0]} x {other[1]}; resize them all with --data.size {min(first)}"
            )
    return channels, (first[1], first[0])


def _header(path: Path) -> tuple[str, tuple[int, int]]:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.mode, image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(_unreadable(path, error)) from None


def _unreadable(path: Path, error: Exception) -> str:
    return f"{path} is not a readable image: {error}; repair or remove the file"
