"""`limbeck predict`: labels and probabilities for new samples."""

from __future__ import annotations

import argparse
import csv
import io
import json
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
    write(path, found, read_card(options.run).classes)
    summary = {"out": str(path), "samples": len(found["label"])}
    if options.json:
        say.as_json(summary)
    else:
        say.results().print(f"{summary['samples']} predictions  {path}", soft_wrap=True)
    return 0


def write(path: Path, found: dict[str, Any], classes: tuple[str, ...]) -> None:
    """Write predictions as the file's suffix asks."""
    from limbeck.recipe.folder import write_bytes

    rows = list(zip(found["label"], found["confidence"].tolist(), found["probabilities"].tolist()))
    if path.suffix == ".npz":
        import numpy as np

        buffer = io.BytesIO()
        np.savez(
            buffer, **{**found, "label": np.array(found["label"]), "classes": np.array(classes)}
        )
        write_bytes(path, buffer.getvalue())
    elif path.suffix == ".jsonl":
        lines = (
            json.dumps({"label": label, "confidence": sure, "probabilities": dict(zip(classes, p))})
            for label, sure, p in rows
        )
        write_bytes(path, "".join(f"{line}\n" for line in lines).encode())
    else:
        text = io.StringIO()
        table = csv.writer(text)
        table.writerow(["label", "confidence", *(f"p_{name}" for name in classes)])
        table.writerows([label, sure, *p] for label, sure, p in rows)
        write_bytes(path, text.getvalue().encode())
