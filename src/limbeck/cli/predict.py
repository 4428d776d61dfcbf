"""`limbeck predict`: labels and probabilities for new samples."""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from limbeck.cli import say
from limbeck.cli.arguments import Overrides
from limbeck.cli.recipes import own_model, read_recipe
from limbeck.errors import InputError

SUFFIXES = (".csv", ".jsonl", ".npz")


def run(options: argparse.Namespace, overrides: Overrides) -> int:
    """Write one row a sample, in the order of the samples."""
    recipe = read_recipe(options, overrides)
    if recipe.out is None or Path(recipe.out).suffix not in SUFFIXES:
        raise InputError(f"say where the predictions go: --out FILE with {', '.join(SUFFIXES)}")
    from limbeck.models.card import read_card
    from limbeck.runs.evaluate import predict

    found = predict(
        options.run,
        options.samples,
        model=own_model(recipe, options.run),
        device=recipe.training.device,
    )
    path = Path(recipe.out)
    write(path, found, read_card(options.run).classes, files_of(Path(options.samples)))
    summary = {"out": str(path), "samples": len(found["label"])}
    if options.json:
        say.as_json(summary)
    else:
        say.results().print(f"{summary['samples']} predictions  {path}", soft_wrap=True)
    return 0


def files_of(samples: Path) -> list[str]:
    """The files that the samples of a folder of images are; nothing for other data."""
    from limbeck.data.images import image_files

    if not samples.is_dir():
        return []
    return [str(file.relative_to(samples)) for file in image_files(samples)]


def write(path: Path, found: dict[str, Any], classes: tuple[str, ...], files: list[str]) -> None:
    """Write predictions as the file's suffix asks."""
    from limbeck.recipe.folder import write_bytes

    content = {".csv": _csv, ".jsonl": _lines, ".npz": _arrays}[path.suffix]
    write_bytes(path, content(found, classes, files))


def _csv(found: dict[str, Any], classes: tuple[str, ...], files: list[str]) -> bytes:
    text = io.StringIO()
    table = csv.writer(text)
    named = ["file"] if files else []
    table.writerow([*named, "label", "confidence", *(f"p_{name}" for name in classes)])
    for number, (label, sure, shares) in enumerate(_rows(found)):
        table.writerow([*files[number : number + 1], label, sure, *shares])
    return text.getvalue().encode()


def _lines(found: dict[str, Any], classes: tuple[str, ...], files: list[str]) -> bytes:
    lines = []
    for number, (label, sure, shares) in enumerate(_rows(found)):
        row: dict[str, Any] = {"file": files[number]} if files else {}
        row |= {"label": label, "confidence": sure}
        row["probabilities"] = dict(zip(classes, shares, strict=True))
        lines.append(json.dumps(row) + "\n")
    return "".join(lines).encode()


def _arrays(found: dict[str, Any], classes: tuple[str, ...], files: list[str]) -> bytes:
    import numpy as np

    buffer = io.BytesIO()
    arrays: dict[str, Any] = {name: np.array(values) for name, values in found.items()}
    if files:
        arrays["file"] = np.array(files)
    np.savez(buffer, **arrays, classes=np.array(classes))
    return buffer.getvalue()


def _rows(found: dict[str, Any]) -> Iterator[tuple[str, float, list[float]]]:
    """Label, confidence and probabilities of each sample."""
    confidence, probabilities = found["confidence"].tolist(), found["probabilities"].tolist()
    return zip(found["label"], confidence, probabilities, strict=True)
