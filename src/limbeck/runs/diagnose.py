"""`diagnose`: is distillation worth it here, and how, before any long training."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.data.base import Split
from limbeck.data.random import generator
from limbeck.diagnosis.findings import Finding, capacity, cost, teacher_quality
from limbeck.diagnosis.models import leaks, preprocessing, resolution, statistics
from limbeck.diagnosis.size import effective_size, size_report
from limbeck.diagnosis.verdict import Diagnosis, judge
from limbeck.errors import InputError
from limbeck.nn.forward import as_record
from limbeck.runs.api import Teachers, make_recipe, teacher_list
from limbeck.runs.job import Job, StudentLike, make_job
from limbeck.students import start_from
from limbeck.teachers.base import mean_logits
from limbeck.teachers.live import LiveTeacher
from limbeck.theory import Difficulty, Tangent, difficulty

SAMPLES, HELD_OUT, SIZE_SAMPLES = 384, 1000, 2000
STAGES = ("teacher", "difficulty", "size", "start")
Report = Callable[[int, int, str], None]


def diagnose(
    student: StudentLike,
    teacher: Teachers,
    data: Any,
    *,
    samples: int = SAMPLES,
    memory: float = 2 * 2**30,
    skip: tuple[str, ...] = (),
    seed: int = 0,
    report: Report | None = None,
) -> Diagnosis:
    """Check teacher and data, and predict whether and how distillation will help this student.

    The student is replaced by its linearization at its start, whose end of training is a linear
    system: a forecast of the order of the cells, not of the error to the digit. Nothing is trained
    but, for the size, a spectral copy of the student on some samples.

    Args:
        student: as in `limbeck.distill`; it is not changed.
        teacher: as there.
        data: as there.
        samples: of the training split, that the kernel is computed of.
        memory: bytes that gradients may take.
        skip: of "difficulty", "size" and "start".
        seed: of the student, and of which samples are looked at.
        report: told of progress: stages done, how many there are, words.

    Raises:
        InputError: models and data do not fit, or no teacher.
    """
    teachers = teacher_list(teacher)
    if not teachers:
        raise InputError("diagnose compares a student with its teacher: name one")
    recipe = make_recipe(
        student, data, method="kd", task=None, training=None, input=None, seed=seed
    )
    job = make_job(recipe, student=student, teachers=teachers, data=data)
    return diagnose_job(job, samples=samples, memory=memory, skip=skip, report=report)


def diagnose_job(
    job: Job,
    *,
    samples: int = SAMPLES,
    memory: float = 2 * 2**30,
    skip: tuple[str, ...] = (),
    report: Report | None = None,
) -> Diagnosis:
    """The same for a job that was built already."""
    unknown = set(skip) - set(STAGES[1:])
    if unknown:
        raise InputError(f"cannot skip {', '.join(sorted(unknown))}; only {', '.join(STAGES[1:])}")
    if samples < 16:
        raise InputError(f"samples is {samples}: a kernel of fewer than 16 says nothing")
    tell = report or (lambda done, total, words: None)
    if not job.data.classes:
        raise InputError("diagnose knows classification: these data have no classes")
    probe = Probe.make(job, samples)
    tell(0, len(STAGES), "teacher")
    preflight = probe.preflight()
    notes: list[str] = []

    def attempt(name: str, stage: Callable[[], Any]) -> Any:
        tell(STAGES.index(name), len(STAGES), name)
        if name in skip:
            notes.append(f"{name}: skipped")
            return None
        try:
            return stage()
        except InputError as error:
            notes.append(f"{name}: {error}")
            return None

    grid: Difficulty | None = attempt("difficulty", lambda: probe.difficulty(memory))
    size = attempt("size", probe.size)
    start = attempt("start", probe.start)
    helps, words, method = judge(preflight, grid, len(probe.y_held_out))
    tell(len(STAGES), len(STAGES), "done")
    held_out = len(probe.y_held_out)
    return Diagnosis(preflight, grid, size, start, notes, helps, words, method, held_out)


@dataclass
class Probe:
    """Samples of a job with what its teacher says of them.

    Attributes:
        job: the job.
        model: the student at its start, in evaluation mode.
        raw: training samples in the data's scale.
        y: their labels.
        held_out: samples of the validation split, in the data's scale.
        y_held_out: their labels.
        said: the teacher's logits of the training samples.
        said_held_out: and of the held-out ones.
        seconds: the teacher's time for one sample.
        samples: how many of the training samples the kernel takes.
    """

    job: Job
    model: nn.Module
    raw: Tensor
    y: Tensor
    held_out: Tensor
    y_held_out: Tensor
    said: Tensor
    said_held_out: Tensor
    seconds: float
    samples: int

    @classmethod
    def make(cls, job: Job, samples: int) -> Probe:
        """Choose the samples and ask the teacher."""
        train = _some(job.data.train, max(samples, SIZE_SAMPLES), job.recipe.seed)
        val = _some(job.data.val, HELD_OUT, job.recipe.seed)
        began = time.perf_counter()
        said, said_held_out = _answers(job, train), _answers(job, val)
        seconds = (time.perf_counter() - began) / (len(train) + len(val))
        a, b = (part.fetch(torch.arange(len(part))) for part in (train, val))
        model = job.build(job.recipe.seed).to(job.device).eval()
        return cls(
            job, model, a["x"], a["y"], b["x"], b["y"], said, said_held_out, seconds, samples
        )

    @property
    def teacher(self) -> LiveTeacher | None:
        """The teacher where it is one live model."""
        members = self.job.teachers.members
        return members[0] if len(members) == 1 and isinstance(members[0], LiveTeacher) else None

    def preflight(self) -> list[Finding]:
        """Every check."""
        job, teacher = self.job, self.teacher
        said, labels = self.said_held_out, self.y_held_out.cpu()
        now = self._outputs(self.held_out).cpu()
        found = teacher_quality(said, labels, job.data.classes, now)
        if teacher is not None:
            found += self._model_checks(teacher)
        size = None if teacher is None else sum(p.numel() for p in teacher.model.parameters())
        found.append(capacity(sum(p.numel() for p in self.model.parameters()), size))
        found += leaks(job.data)
        pool = len(job.data.train) + (0 if job.data.pool is None else len(job.data.pool))
        return [*found, *cost(self.seconds, pool, said.shape[1], job.recipe.training.epochs)]

    def _model_checks(self, teacher: LiveTeacher) -> list[Finding]:
        x, labels = self.held_out, self.y_held_out

        def score(logits: Tensor) -> float:
            if teacher.order is not None:
                logits = logits[:, teacher.order.to(logits.device)]
            return float((logits.argmax(1) == labels).double().mean())

        teacher.tap(())  # its own modules again, whatever made it faster
        checks = [
            preprocessing(teacher.model, teacher.adapter, self.job.data, x, score),
            statistics(teacher.model, teacher.adapter(x), score),
            resolution(teacher.adapter, self.job.data),
        ]
        return [check for check in checks if check is not None]

    @torch.no_grad()
    def _outputs(self, x: Tensor) -> Tensor:
        adapter = self.job.adapter.to(self.job.device)
        parts = [as_record(self.model(adapter(part)))["logits"] for part in torch.split(x, 256)]
        return torch.cat(parts)

    def difficulty(self, memory: float) -> Difficulty:
        """The grid of mixes, from the student's kernel on some samples."""
        adapter = self.job.adapter.to(self.job.device)
        x, held_out = adapter(self.raw[: self.samples]), adapter(self.held_out)
        tangent = Tangent(self.model, memory=memory)
        kernel, cross = tangent.kernels(x, held_out)
        start = (tangent.outputs(x).cpu(), tangent.outputs(held_out).cpu())
        labels = (self.y[: self.samples].cpu(), self.y_held_out.cpu())
        said = self.said[: self.samples].double()
        return difficulty(kernel.cpu(), cross.cpu(), start, said, labels)

    def size(self) -> dict[str, Any]:
        """The spectral probe."""
        adapter = self.job.adapter.to(self.job.device)
        train = (adapter(self.raw), self.said)
        found = effective_size(self.model, train, (adapter(self.held_out), self.y_held_out))
        return size_report(*found)

    def start(self) -> dict[str, float]:
        """The table of starts, where student and teacher are of one structure."""
        teacher = self.teacher
        if teacher is None:
            raise InputError("a start needs one live teacher")
        if teacher.adapter.key != self.job.adapter.key or teacher.order is not None:
            raise InputError("teacher and student take their inputs or classes differently")
        teacher.tap(())  # its own modules again, whatever made it faster
        x = self.job.adapter(self.raw)
        return start_from(
            teacher.model, self.model, x=x, held_out=self.job.adapter(self.held_out)
        ).losses


def _some(split: Split, count: int, seed: int) -> Split:
    order = torch.randperm(len(split), generator=generator(seed, "diagnose"))
    return split.select(order[:count])


def _answers(job: Job, split: Split) -> Tensor:
    """The (mean) teacher's logits, on the CPU."""
    said = [member.outputs(split) for member in job.teachers.to(job.device).members]
    known = [logits for logits in said if logits is not None]
    if len(known) < len(said):
        raise InputError("a store holds no outputs for some samples: label train and val first")
    return known[0] if len(known) == 1 else mean_logits(known)
