"""The front door in Python: `train` and `distill`."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from limbeck.errors import InputError
from limbeck.methods.base import MethodSpec
from limbeck.methods.build import MethodLike, dump_method, parse_method
from limbeck.recipe.spec import InputSpec, Recipe, Training
from limbeck.recipe.validation import explain
from limbeck.report.html import write_report
from limbeck.runs.execute import Result, Started, execute
from limbeck.runs.job import Job, StudentLike, TeacherLike, make_job
from limbeck.runs.progress import bars
from limbeck.runs.report import sample_sources

Teachers = TeacherLike | Sequence[TeacherLike]


def distill(
    student: StudentLike,
    teacher: Teachers | None,
    data: Any,
    *,
    method: MethodLike = "kd",
    task: str | None = None,
    training: Training | Mapping[str, Any] | None = None,
    input: InputSpec | Mapping[str, Any] | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Result:
    """Train a student on data with the help of a teacher.

    Args:
        student: a module (copied before its first use), a function of a seed that returns
            one, or a name such as `limbeck:resnet20`.
        teacher: a trained module, a name with weights, the folder of a run, or a list of them;
            None for a method that works without one.
        data: a named set, a path, arrays `(x, y)` or `(x_train, y_train, x_test, y_test)`,
            a map-style dataset, or a `Data`. Images are (N, C, H, W).
        method: name, mapping with options, or a list of terms; see `limbeck methods`.
        task: what the student is for; classification where it is not said.
        training: epochs, batch, optimizer, views and so on; see `Training`.
        input: the student's normalisation and resolution; the data's own where not said.
        seed: of initialisation, batch order, views and dropout.
        out: the run folder; a new one under `runs/` where it is not said.
        resume: go on with the run that stands in `out`.
        progress: show a progress bar.

    Returns:
        The plain student, its metrics, the run folder and the card.

    Raises:
        InputError: something does not fit; nothing was trained.
        RunError: the training failed, for example on a loss that is not finite.
    """
    teachers = teacher_list(teacher)
    recipe = make_recipe(
        student, data, method=method, task=task, training=training, input=input, seed=seed
    )
    job = make_job(recipe, student=student, teachers=teachers, data=data)
    return run_job(job, _place(out, "distill"), resume=resume, progress=progress)


def train(
    model: StudentLike,
    data: Any,
    *,
    task: str | None = None,
    training: Training | Mapping[str, Any] | None = None,
    input: InputSpec | Mapping[str, Any] | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Result:
    """Train a model on labels alone: a teacher to be, or the arm without one.

    Arguments, result and errors are those of `distill`.
    """
    recipe = make_recipe(
        model, data, method="labels", task=task, training=training, input=input, seed=seed
    )
    job = make_job(recipe, student=model, teachers=[], data=data)
    return run_job(job, _place(out, "train"), resume=resume, progress=progress)


def run_job(
    job: Job,
    folder: Path,
    *,
    resume: bool = False,
    progress: bool = True,
    started: Started | None = None,
) -> Result:
    """Execute a job under a progress bar, and write its report; `started` is as in `execute`."""
    with bars(show=progress) as display, display.run(folder.name) as report:
        result = execute(job, folder, resume=resume, report=report, started=started)
    if os.environ.get("RANK", "0") == "0":
        write_report(folder, **sample_sources(job.data))
    return result


def make_recipe(
    student: object,
    data: object,
    *,
    method: MethodLike,
    task: str | None,
    training: Training | Mapping[str, Any] | None,
    input: InputSpec | Mapping[str, Any] | None,
    seed: int,
    **more: Any,
) -> Recipe:
    """The recipe of a call from Python; objects have no name in it."""
    spec = parse_method(method)
    content: dict[str, Any] = {
        "student": student if isinstance(student, str) else "",
        "method": dump_method(spec) if isinstance(method, MethodSpec) else method,
        "training": _plain(training),
        "seed": seed,
        "input": None if input is None else _plain(input),
        **more,
    }
    if isinstance(data, str | Path):
        content["data"] = str(data)
    if task is not None:
        content["task"] = task
    return validate(content)


def validate(content: Mapping[str, Any]) -> Recipe:
    """A recipe from plain data.

    Raises:
        InputError: unknown key, wrong type, or a value out of range.
    """
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise InputError(explain(error)) from None


def teacher_list(teacher: Teachers | None) -> list[TeacherLike]:
    """No teacher, one or several, as a list."""
    if teacher is None:
        return []
    return [teacher] if isinstance(teacher, TeacherLike) else list(teacher)


def _plain(value: Any) -> Any:
    if value is None:
        return {}
    return value.model_dump(exclude_unset=True) if hasattr(value, "model_dump") else dict(value)


def _place(out: str | Path | None, verb: str) -> Path:
    return new_folder(verb) if out is None else Path(out)


def new_folder(verb: str) -> Path:
    """A folder under `runs/` that does not exist yet, named after the verb and the time."""
    stamp = f"{verb}-{time.strftime('%Y%m%d-%H%M%S')}"
    names = [stamp, *(f"{stamp}-{number}" for number in range(2, 1000))]
    return next(Path("runs") / name for name in names if not os.path.exists(Path("runs") / name))
