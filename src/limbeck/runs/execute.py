"""Executing a job: train, evaluate once on the test split, leave a complete run folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.data.base import Data, Record
from limbeck.data.feed import Feed
from limbeck.data.plan import BatchPlan
from limbeck.engine.checkpoint import load_tensors, save_tensors, unnest
from limbeck.engine.engine import Engine
from limbeck.engine.loop import Loop, Report, Standing
from limbeck.engine.ranks import Ranks
from limbeck.engine.survey import Survey
from limbeck.errors import InputError, RunError
from limbeck.methods.base import Method, Setting
from limbeck.methods.build import build_method, dump_method
from limbeck.nn.forward import Forward
from limbeck.nn.taps import tap_shapes
from limbeck.recipe import yaml
from limbeck.recipe.folder import RunFolder
from limbeck.runs.card import make_card
from limbeck.runs.environment import environment
from limbeck.runs.job import Job, check_batch, check_models
from limbeck.runs.seeding import seeded
from limbeck.runs.stores import make_views
from limbeck.teachers.remembered import Remembered
from limbeck.teachers.several import Teachers


@dataclass(frozen=True)
class Result:
    """What a run returns.

    Attributes:
        student: the plain student, in evaluation mode, on the CPU.
        metrics: `val.accuracy`, `test.nll`, ...; `last.*` and `best.*` for the two epochs.
        run: the run folder.
        card: the model card as plain data.
    """

    student: nn.Module
    metrics: dict[str, float]
    run: Path
    card: dict[str, Any]


def quiet(step: int, steps: int, words: str) -> None:
    """A report of progress that says nothing."""


Started = Callable[[Method], None]
"""What is told the method before the first step."""


def execute(
    job: Job,
    folder: Path,
    *,
    resume: bool = False,
    report: Report = quiet,
    started: Started | None = None,
) -> Result:
    """Run `job` in `folder`.

    Args:
        job: built by `make_job`.
        folder: where everything goes.
        resume: go on with a run that stands there.
        report: told of progress.
        started: told the method, before the first step.

    Raises:
        InputError: the folder is taken, or models and data do not fit.
        RunError: NaN, a full disk, or no memory left on the device.
    """
    ranks = Ranks(job.device)
    engine = make_engine(job, ranks)
    place = RunFolder(ranks.agree(folder), resume=resume, writer=ranks.first)
    try:
        _describe(place, job)
        if started is not None:
            started(engine.method)
        engine.teachers = heard(job, engine, report if ranks.first else quiet)
        loop = Loop(engine, place, job.task, job.data.val, report if ranks.first else quiet)
        standing = loop.run()
        metrics, logits = _final(job, loop, standing)
        result = _deliver(job, loop, place, metrics, logits)
        ranks.wait()
        return result
    except torch.OutOfMemoryError as error:
        raise RunError(
            f"{job.device} is out of memory; lower training.batch, or compute it in more pieces "
            f"with training.accumulate ({str(error).partition('. ')[0]})"
        ) from None
    finally:
        place.close()


def make_engine(job: Job, ranks: Ranks) -> Engine:
    """All that trains the job's student, and is looked at before its folder is made.

    Raises:
        InputError: models, data, method and training do not fit one another.
    """
    student = job.build(job.recipe.seed)
    check_models(job, student)
    method = make_method(job, student)
    feed = make_feed(job, ranks, method)
    check_batch(job, student, feed.batch(0))
    return Engine(
        method,
        job.teachers,
        feed,
        job.recipe.training,
        adapter=job.adapter,
        ranks=ranks,
        device=job.device,
        seed=job.recipe.seed,
        clean=_clean(job),
    )


def _clean(job: Job) -> Survey:
    """What a method may look at besides its batches."""
    splits = {name: split for name, split in job.data.splits.items() if name != "test"}
    return Survey(splits, job.teacher_outputs)


def heard(job: Job, engine: Engine, report: Report = quiet) -> Teachers:
    """What the method hears in every step: nobody, the teachers, or what they said before."""
    method = engine.method
    if not method.needs_teacher:
        return Teachers()
    if not _can_remember(job, method):
        return job.teachers
    feed = engine.feed
    return Teachers(
        [
            Remembered(teacher, feed.parts, feed.views, job.memory, job.device, report)
            if teacher.live and not teacher.taps
            else teacher
            for teacher in job.teachers.members
        ]
    )


def _can_remember(job: Job, method: Method) -> bool:
    """Whether outputs come again, in another epoch or for another arm, and fit into memory."""
    training, pool = job.recipe.training, job.data.pool
    samples = max(len(job.data.train), 0 if pool is None else len(pool))
    return (
        training.reuse_outputs
        and (not training.views or training.view_count is not None or job.shared)
        and not (method.raw or method.online)
        and samples * job.task.outputs * 4 <= job.memory.limit
    )


def make_method(job: Job, student: nn.Module) -> Method:
    """The job's method around `student`; the teachers are tapped where it reads them."""
    job.teachers.to(job.device)
    setting = Setting(
        task=job.task,
        classes=job.task.outputs,
        ids=job.data.train.ids.cpu(),
        teachers=len(job.teachers),
        live=job.teachers.live,
        seed=job.recipe.seed,
        observe=lambda ours, theirs: _observe(job, student, ours, theirs),
        module=lambda who, path: _module(job, student, who, path),
        survey=lambda who: _survey(job, student if who == "student" else None),
        pool=None if job.data.pool is None else job.data.pool.ids.cpu(),
        earlier=_earlier,
    )
    with seeded(job.recipe.seed, "method"):
        method = build_method(job.method, student, setting)
    _check_classes(job, method)
    job.teachers.tap(method.teacher_taps)
    return method


def _check_classes(job: Job, method: Method) -> None:
    """Refuses a teacher that does not know every class, where the method needs all of them."""
    for teacher in job.teachers.members:
        unknown = getattr(teacher, "unknown", ())
        if unknown and not method.partial_teachers:
            raise InputError(
                f"the teacher {teacher.name!r} has no output for class(es) "
                f"{', '.join(job.data.classes[number] for number in unknown[:5])}; name every "
                f"class of the data in its 'classes', or let several teachers share the classes "
                f"with --method adaptive_ensemble"
            )


def _earlier(run: str) -> dict[str, Tensor]:
    """The state of the method of a run, from its last checkpoint."""
    return unnest("method", load_tensors(Path(run) / "checkpoints" / "last.safetensors")[0])


def _observe(job: Job, student: nn.Module, ours: Sequence[str], theirs: Sequence[str]) -> Record:
    """One batch of two samples with what student and teachers say of it."""
    batch = job.data.train.fetch(torch.arange(2, device=job.device))
    forward = Forward(student, job.adapter, ours)
    job.teachers.tap(theirs)
    training = student.training
    student.eval()
    with torch.no_grad():
        batch.update({f"student.{key}": value for key, value in forward(batch["x"]).items()})
        batch.update(job.teachers(batch))
    student.train(training)
    forward.taps.remove()
    return batch


def _module(job: Job, student: nn.Module, who: str, path: str) -> nn.Module:
    """A part of the student or of the first teacher."""
    if who == "student":
        return student.get_submodule(path)
    return job.teachers.members[0].module(path)


def _survey(job: Job, student: nn.Module | None) -> dict[str, tuple[int, ...]]:
    """The taps of the student, or of the first teacher."""
    batch = job.data.train.fetch(torch.arange(2, device=job.device))
    if student is None:
        return job.teachers.members[0].survey(batch)
    return tap_shapes(student, job.adapter(batch["x"]))


def make_feed(job: Job, ranks: Ranks, method: Method) -> Feed:
    """The batches of the job for this rank."""
    training, data, seed = job.recipe.training, job.data, job.recipe.seed
    pool = data.pool if method.uses_pool else None
    plan = BatchPlan(
        labeled=len(data.train),
        batch=training.batch,
        seed=seed,
        pool=0 if pool is None else len(pool),
        pool_ratio=training.pool_ratio,
        accumulate=training.accumulate,
        ranks=ranks.count,
        rank=ranks.rank,
        view_count=training.view_count,
    )
    parts = {"train": data.train} if pool is None else {"train": data.train, "pool": pool}
    return Feed(plan, parts, make_views(job.recipe, data.kind, parts), job.device)


def _describe(folder: RunFolder, job: Job) -> None:
    """Write down what is about to run."""
    if folder.writer:
        yaml.write(folder.path / "recipe.yaml", resolved(job))
        folder.write("environment.json", environment(job.device))
        folder.write("data.json", dict(job.data.facts))


def resolved(job: Job) -> dict[str, Any]:
    """The recipe with every default written out."""
    plain = job.recipe.model_dump(mode="json", fallback=_named)
    return plain | {"method": dump_method(job.method)}


def _named(value: Any) -> str:
    """What is no plain data, the function of a caller's own term, by its name."""
    return str(getattr(value, "__qualname__", type(value).__name__))


def _final(job: Job, loop: Loop, standing: Standing) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Metrics and logits of both epochs; the delivered one's modules are left in place."""
    keep = "best" if job.recipe.training.early_stop else job.recipe.training.keep
    other = "last" if keep == "best" else "best"
    logits: dict[str, dict[str, Tensor]] = {"last": _split_logits(job, loop)}
    loop.restore("best")
    logits["best"] = _split_logits(job, loop)
    if keep == "last":
        loop.restore("last")
    metrics = {"best.epoch": float(standing.best_epoch)}
    for epoch in (keep, other):
        measured = _measure(job, logits[epoch])
        metrics |= {f"{epoch}.{name}": value for name, value in measured.items()}
        if epoch == keep:
            metrics |= measured
    return metrics, logits[keep]


def _split_logits(job: Job, loop: Loop) -> dict[str, Tensor]:
    splits = {"val": job.data.val, "test": job.data.test}
    return {name: loop.outputs(split) for name, split in splits.items() if split is not None}


def _measure(job: Job, logits: dict[str, Tensor]) -> dict[str, float]:
    """`SPLIT.METRIC` for each split, with the agreement with the teacher where there is one."""
    metrics: dict[str, float] = {}
    for name, values in logits.items():
        y = job.data.splits[name].y
        if y is None:
            raise InputError(f"the {name} split of {job.data.name!r} has no labels")
        metrics |= {f"{name}.{key}": value for key, value in job.task.metrics(values, y).items()}
        teacher = job.teacher_outputs(name) if len(job.teachers) else None
        if teacher is not None:
            same = values.argmax(-1) == teacher.argmax(-1)
            metrics[f"{name}.agreement"] = same.float().mean().item()
    return metrics


def _deliver(
    job: Job, loop: Loop, folder: RunFolder, metrics: dict[str, float], logits: dict[str, Tensor]
) -> Result:
    """Write the final line, the predictions, the plain student and its card."""
    folder.metrics.append({"event": "final", "metrics": metrics})
    student = loop.engine.deliver()
    card = make_card(job, student, metrics)
    if folder.writer:
        save_tensors(folder.path / "predictions.safetensors", _predictions(job, logits), {})
        save_tensors(folder.path / "student.safetensors", student.state_dict(), {})
        _write_encoding(job.data, folder)
        folder.write("card.json", card)
    return Result(student, metrics, folder.path, card)


def _write_encoding(data: Data, folder: RunFolder) -> None:
    """How raw samples become those that the student was trained on, for `predict`."""
    if data.encode:
        folder.write("encode.json", dict(data.encode))
    if data.encode_tensors:
        save_tensors(folder.path / "encode.safetensors", dict(data.encode_tensors), {})


def _predictions(job: Job, logits: dict[str, Tensor]) -> dict[str, Tensor]:
    """What reports and pooled tests read: logits and labels of the evaluated splits."""
    tensors = {}
    for name, values in logits.items():
        tensors[f"{name}.logits"] = values
        y = job.data.splits[name].y
        if y is not None:
            tensors[f"{name}.y"] = y
        teacher = job.teacher_outputs(name) if len(job.teachers) else None
        if teacher is not None:
            tensors[f"teacher.{name}.logits"] = teacher
    return tensors
