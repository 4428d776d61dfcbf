"""The quickstart: the whole tour on data that every machine has, in about a minute.

A convolutional teacher learns from 100 labelled digits. A student of a sixteenth of its size
learns from the same 100 labels alone, or from the teacher too, which also says what it sees in
the 1,194 training digits that have no label.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from limbeck.recipe.spec import Training
from limbeck.runs.api import run_job, validate
from limbeck.runs.compare import Comparison, compare_job
from limbeck.runs.job import make_job

LABELS, SEEDS = 100, 5
TEACHER = "limbeck:convnet?widths=32,64"
STUDENT = "limbeck:mlp?widths=16"
DATA = {"source": "digits", "labels": LABELS}
OPTIMIZER = {"name": "sgd", "lr": 0.05}


def quickstart(
    folder: Path, *, seed: int = 0, machine: Training | None = None, resume: bool = False
) -> tuple[Comparison, float]:
    """Train the teacher, compare the arms, and say how many seconds it took.

    Args:
        folder: for all of it.
        seed: the first of the five, and the teacher's.
        machine: of it, `device`, `precision` and `workers`.
        resume: go on with what stands in the folder.

    Raises:
        InputError: a run stands in the folder already and is not to be resumed.
    """
    started = time.monotonic()
    # Networks as small as these lose more by sharing their work than they win.
    torch.set_num_threads(1)
    teacher = folder / "teacher"
    if not (teacher / "card.json").exists():
        run_job(make_job(validate(teacher_recipe(seed, machine))), teacher, resume=resume)
    job = make_job(validate(comparison_recipe(teacher, seed, machine)))
    comparison = compare_job(job, folder, resume=resume)
    return comparison, time.monotonic() - started


def teacher_recipe(seed: int, machine: Training | None) -> dict[str, Any]:
    """A convolutional network on the labels alone, with shifted copies of the digits."""
    training = {
        "epochs": 60,
        "batch": 25,
        "views": [{"crop": {"padding": 1}}],
        "optimizer": OPTIMIZER,
        **_machine(machine),
    }
    return {
        "student": TEACHER,
        "data": DATA,
        "method": "labels",
        "training": training,
        "seed": seed,
    }


def comparison_recipe(teacher: Path, seed: int, machine: Training | None) -> dict[str, Any]:
    """No teacher, plain KD, and KD tuned on the validation split."""
    training = {
        "epochs": 40,
        "batch": 25,
        "pool_ratio": 8,
        "optimizer": OPTIMIZER,
        **_machine(machine),
    }
    return {
        "student": STUDENT,
        "teacher": str(teacher),
        "data": DATA,
        "method": "kd",
        "training": training,
        "compare": {"seeds": SEEDS, "arms": {"kd": {"method": "kd"}}},
        "seed": seed,
    }


def _machine(training: Training | None) -> dict[str, Any]:
    """What the user may say of where and how it runs."""
    keys = {"device", "precision", "workers"}
    return {} if training is None else training.model_dump(include=keys)


def summary(comparison: Comparison, seconds: float) -> dict[str, Any]:
    """The figures of each arm, JSON-ready."""
    return {
        "out": str(comparison.folder),
        "arms": {row["arm"]: _figures(row) for row in comparison.rows},
        "seconds": round(seconds, 1),
    }


def _figures(row: dict[str, Any]) -> dict[str, Any]:
    metrics = row["metrics"]
    return {
        "accuracy": metrics["test.accuracy"]["mean"],
        "ci95": metrics["test.accuracy"]["ci95"],
        "nll": metrics["test.nll"]["mean"],
        "ece": metrics["test.ece"]["mean"],
        "agreement": metrics["test.agreement"]["mean"],
        "parameters": row["parameters"],
        "latency_ms": row["latency_ms"],
    }
