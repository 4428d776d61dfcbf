"""Comparing arms: the same recipe, batch plan and seeds, one difference each."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from limbeck.engine.ranks import Ranks
from limbeck.errors import InputError
from limbeck.methods.build import MethodLike, method_name, parse_method
from limbeck.recipe import yaml
from limbeck.recipe.folder import read_json, write_json
from limbeck.recipe.override import merge
from limbeck.recipe.spec import ArmSpec, CompareSpec, InputSpec, Training
from limbeck.runs.api import make_recipe, new_folder, teacher_list, validate
from limbeck.runs.execute import execute, make_engine, resolved
from limbeck.runs.job import Job, StudentLike, TeacherLike, make_job
from limbeck.runs.progress import Bars, bars

NO_TEACHER, TUNED = "none", "kd_tuned"


@dataclass(frozen=True)
class Comparison:
    """What a comparison returns.

    Attributes:
        rows: one mapping an arm: metrics with mean, 95 % half-width and values, and the paired
            tests against the arm without a teacher and against tuned KD.
        runs: the run folders of each arm, by seed.
        verdict: which arms beat which with confidence, in words.
        folder: where all of it is.
        table: the whole content of `table.json`.
    """

    rows: list[dict[str, Any]]
    runs: dict[str, list[Path]]
    verdict: str
    folder: Path
    table: dict[str, Any]


def compare(
    student: StudentLike,
    teacher: TeacherLike | Sequence[TeacherLike],
    data: Any,
    *,
    arms: Mapping[str, MethodLike | ArmSpec] | Sequence[str] = (),
    seeds: int = 3,
    metric: str = "accuracy",
    temperatures: Sequence[float] | None = None,
    weights: Sequence[float] | None = None,
    task: str | None = None,
    training: Training | Mapping[str, Any] | None = None,
    input: InputSpec | Mapping[str, Any] | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Comparison:
    """Train every arm with every seed and compare them, paired by seed.

    Two arms always run beside the others: `none`, without a teacher, and `kd_tuned`, plain KD
    with temperature and weight chosen on the validation split.

    Args:
        student: as in `distill`.
        teacher: as in `distill`.
        data: as in `distill`.
        arms: methods by the name of their arm; names alone are methods too.
        seeds: how many seeds an arm gets.
        metric: test metric of the paired tests.
        temperatures: grid of `kd_tuned`.
        weights: grid of `kd_tuned`: the share of the soft labels.
        task: as in `distill`.
        training: as in `distill`, for every arm.
        input: as in `distill`.
        seed: the first seed.
        out: the comparison's folder.
        resume: go on with the comparison that stands in `out`; finished runs are kept.
        progress: show progress bars.

    Returns:
        Rows, runs and the verdict; `table.md`, `table.json` and `report.html` are in the folder.

    Raises:
        InputError: something does not fit; nothing was trained.
        RunError: a training failed.
    """
    teachers = teacher_list(teacher)
    named = dict(arms) if isinstance(arms, Mapping) else {name: name for name in arms}
    spec: dict[str, Any] = {"seeds": seeds, "metric": metric, "arms": _arm_specs(named)}
    spec |= {} if temperatures is None else {"temperatures": list(temperatures)}
    spec |= {} if weights is None else {"weights": list(weights)}
    recipe = make_recipe(
        student,
        data,
        method="kd",
        task=task,
        training=training,
        input=input,
        seed=seed,
        compare=spec,
    )
    job = make_job(recipe, student=student, teachers=teachers, data=data)
    place = new_folder("compare") if out is None else Path(out)
    return compare_job(job, place, resume=resume, progress=progress)


def _arm_specs(arms: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: arm if isinstance(arm, ArmSpec) else {"method": arm} for name, arm in arms.items()
    }


def compare_job(
    job: Job, folder: Path, *, resume: bool = False, progress: bool = True
) -> Comparison:
    """Compare the arms that the job's recipe names."""
    spec = job.recipe.compare or CompareSpec()
    job = replace(job, shared=True)
    jobs = arm_jobs(job)
    _claim(folder, job, resume)
    tuning = len(spec.temperatures) * len(spec.weights)
    total = tuning + (len(jobs) + 1) * spec.seeds
    with bars(total, show=progress) as display:
        jobs[TUNED] = _tuned(job, spec, folder, display)
        order = [NO_TEACHER, TUNED, *(name for name in jobs if name not in (NO_TEACHER, TUNED))]
        runs = {name: _run_arm(jobs[name], name, spec.seeds, folder, display) for name in order}
    return _conclude(job, folder, runs, spec.metric)


def arm_jobs(job: Job) -> dict[str, Job]:
    """The jobs of all arms but tuned KD, each looked at before the first of them trains.

    Raises:
        InputError: no teacher, an unknown metric, or an arm that does not fit; it is named.
    """
    spec = job.recipe.compare or CompareSpec()
    if not len(job.teachers):
        raise InputError("a comparison needs a teacher; give one with --teacher MODEL")
    job.task.better(spec.metric)
    jobs = {name: arm_job(job, name, arm) for name, arm in _arms(spec, job).items()}
    for name, arm in jobs.items():
        try:
            make_engine(arm, Ranks(arm.device))
        except InputError as error:
            raise InputError(f"arm {name!r}: {error}") from None
    return jobs


def _arms(spec: CompareSpec, job: Job) -> dict[str, ArmSpec]:
    """The arms besides tuned KD; the recipe's own method where none is named."""
    own = dict(spec.arms)
    if TUNED in own:
        raise InputError(f"the arm {TUNED!r} is always there; give yours another name")
    if not own:
        own[method_name(job.method)] = ArmSpec()
    for name in own:
        if not name or name != Path(name).name or name.startswith("."):
            raise InputError(f"the arm {name!r} names a folder; use letters, digits, - and _")
    return {NO_TEACHER: ArmSpec(method="labels"), **own}


def arm_job(job: Job, name: str, arm: ArmSpec) -> Job:
    """The job of one arm: the comparison's, with what the arm changes.

    Raises:
        InputError: the arm does not fit; it is named.
    """
    content = job.recipe.model_dump(exclude={"compare", "method"}, exclude_unset=True)
    content["method"] = job.recipe.method if arm.method is None else arm.method
    if arm.student is not None:
        content["student"] = arm.student
    content["training"] = merge(content.get("training", {}), arm.training)
    try:
        parse_method(content["method"])
        return job.change(validate(content), arm.student, arm.teachers)
    except InputError as error:
        raise InputError(f"arm {name!r}: {error}") from None


def _claim(folder: Path, job: Job, resume: bool) -> None:
    """Refuse a folder with another comparison in it."""
    path = folder / "recipe.yaml"
    if path.exists() and not resume:
        raise InputError(
            f"a comparison stands in {folder} already; go on with it by --resume {folder}, or "
            f"name another folder with --out"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot create the folder {folder}: {error.strerror}") from None
    yaml.write(path, resolved(job))


def _tuned(job: Job, spec: CompareSpec, folder: Path, display: Bars) -> Job:
    """Plain KD with the temperature and weight that are best on the validation split."""
    place = folder / "tuning"
    tried = []
    for temperature, weight in product(spec.temperatures, spec.weights):
        method = kd(temperature, weight)
        trial = _with_seed(arm_job(job, TUNED, ArmSpec(method=method)), job.recipe.seed)
        metrics = _finished(trial, place / f"T-{temperature:g}_weight-{weight:g}", display)
        tried.append({"method": method, "metrics": metrics})
    best = choose(tried, spec.metric, job.task.better(spec.metric), len(job.data.val))
    write_json(place / "tuning.json", {"tried": tried, "chosen": best["method"]})
    return arm_job(job, TUNED, ArmSpec(method=best["method"]))


def choose(tried: Sequence[dict[str, Any]], metric: str, sign: int, samples: int) -> dict[str, Any]:
    """The best trial on the validation split.

    Accuracy on a few hundred samples cannot tell close trials apart, so of those within one
    standard error of the most accurate the one with the lowest NLL is taken (the one-standard-error
    rule of Breiman et al., Classification and Regression Trees, 1984). Other metrics rank alone.

    Args:
        tried: mappings with the run's `metrics`.
        metric: what is optimised.
        sign: +1 where more of it is better, -1 where less is.
        samples: size of the validation split.
    """
    key = f"val.{metric}"
    top = max(sign * trial["metrics"][key] for trial in tried)
    slack = (top * (1 - top) / samples) ** 0.5 if metric == "accuracy" else 0.0
    close = [trial for trial in tried if sign * trial["metrics"][key] >= top - slack]
    return min(close, key=lambda trial: trial["metrics"].get("val.nll", 0.0))


def kd(temperature: float, weight: float) -> dict[str, Any]:
    """Plain KD with the rest of the weight on the hard labels."""
    return {
        "name": "kd",
        "temperature": temperature,
        "weight": weight,
        "label_weight": round(1.0 - weight, 9),
    }


def _with_seed(job: Job, seed: int) -> Job:
    return job.change(job.recipe.model_copy(update={"seed": seed}))


def _run_arm(job: Job, name: str, seeds: int, folder: Path, display: Bars) -> list[Path]:
    places = []
    for seed in range(job.recipe.seed, job.recipe.seed + seeds):
        place = folder / "arms" / name / f"seed-{seed}"
        _finished(_with_seed(job, seed), place, display, f"{name}, seed {seed}")
        places.append(place)
    return places


def _finished(job: Job, place: Path, display: Bars, title: str = "") -> Mapping[str, float]:
    """The metrics of a run: kept where it is finished, gone on with or started where not."""
    with display.run(title or f"tuning {place.name}") as report:
        if (place / "card.json").exists():
            metrics: Mapping[str, float] = read_json(place / "card.json")["metrics"]
            return metrics
        return execute(job, place, resume=True, report=report).metrics


def _conclude(job: Job, folder: Path, runs: dict[str, list[Path]], metric: str) -> Comparison:
    from limbeck.report.html import write_report
    from limbeck.report.table import write_table
    from limbeck.runs.report import sample_sources

    if int(os.environ.get("RANK", "0")) == 0:
        table = write_table(folder, metric)
        write_report(folder, **sample_sources(job.data))
    else:
        from limbeck.report.table import build_table

        table = build_table(folder, metric)
    return Comparison(table["arms"], runs, table["verdict"], folder, table)
