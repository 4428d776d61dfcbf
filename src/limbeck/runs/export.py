"""Exporting the student of a run."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from limbeck.errors import InputError
from limbeck.exporters.student import export_student
from limbeck.runs.evaluate import delivered, own_data

CHECKED, CALIBRATION = 64, 512


def export(
    run: str | Path,
    out: str | Path,
    *,
    formats: Sequence[str] = ("safetensors", "pt2", "onnx"),
    data: Any = None,
    model: nn.Module | None = None,
    tolerance: float = 1e-4,
    workers: int = 0,
) -> dict[str, Any]:
    """Write a run's student in other formats, each checked against it on real samples.

    Args:
        run: the folder of a run, or its card.
        out: the folder for the files.
        formats: of `safetensors`, `pt2` (torch.export), `onnx` and `int8`.
        data: what the run was made with, where its recipe cannot find it.
        model: a module of the student's architecture, for one that was built in Python.
        tolerance: largest difference of a logit that a check lets pass.
        workers: threads that read streamed samples ahead.

    Returns:
        The card; `exports` says what was written and how far it differs.

    Raises:
        InputError: no finished run, unknown format, or a missing extra.
        RunError: a file answers otherwise than the student; it is removed.
    """
    from limbeck.data.load import load_data

    student = delivered(run, model=model, device="cpu")
    loaded = own_data(student.card, workers) if data is None else load_data(data, workers=workers)
    if Path(out).resolve() == student.card.folder.resolve():
        raise InputError(f"export to another folder than the run's own, {out}")
    samples = loaded.val.fetch(torch.arange(min(CHECKED, len(loaded.val))))["x"]
    rows = torch.arange(min(CALIBRATION, len(loaded.train)))
    card = export_student(
        student.forward.model,
        out,
        card=student.card.content,
        samples=samples,
        formats=formats,
        tolerance=tolerance,
        calibration=loaded.train.fetch(rows)["x"],
        adapter=student.forward.adapter,
    )
    for name in ("encode.json", "encode.safetensors"):
        if (student.card.folder / name).exists():
            shutil.copyfile(student.card.folder / name, Path(out) / name)
    return card
