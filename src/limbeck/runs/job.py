"""A job: everything a run needs, built and checked before any long work starts."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from limbeck.data.base import Data, Record, Split
from limbeck.engine.ranks import choose_device
from limbeck.errors import InputError
from limbeck.methods.build import Parsed, parse_method
from limbeck.models.ref import parse_ref
from limbeck.nn.forward import Forward
from limbeck.nn.input import InputAdapter
from limbeck.recipe.spec import Recipe, TeacherSpec
from limbeck.runs.models import make_adapter, named_model, named_teacher, own_teacher
from limbeck.runs.seeding import seeded
from limbeck.runs.stores import check_stores, open_store, with_stores
from limbeck.store.reader import TeacherStore
from limbeck.tasks.base import Task
from limbeck.tasks.build import build_task
from limbeck.teachers.base import Teacher, mean_logits
from limbeck.teachers.remembered import Memory
from limbeck.teachers.several import Teachers
from limbeck.teachers.stored import Stored

T = TypeVar("T")

StudentLike = str | nn.Module | Callable[[int], nn.Module]
"""A student by name, as a module (copied before its first use), or as a function of a seed."""

TeacherLike = str | nn.Module | TeacherSpec | TeacherStore
"""A teacher by name, as a trained module (copied), with its own input and classes, or stored."""


@dataclass
class Job:
    """What a run needs.

    Attributes:
        recipe: the resolved recipe.
        data: the splits.
        task: what the student is for.
        student: its name, module or builder.
        adapter: the student's input adapter.
        teachers: all of them.
        method: what is to be built around the student.
        device: where it runs.
        shared: whether other runs replay the same views, so that teachers answer for all of them.
        memory: the teachers' logits for the training samples, kept for whoever shares them.
        teacher_logits: the (mean) teacher's logits by split, once they were needed.
    """

    recipe: Recipe
    data: Data
    task: Task
    student: StudentLike
    adapter: InputAdapter
    teachers: Teachers
    method: Parsed
    device: torch.device
    shared: bool = False
    memory: Memory = field(default_factory=Memory)
    teacher_logits: dict[str, Tensor | None] = field(default_factory=dict)

    def change(
        self,
        recipe: Recipe,
        student: StudentLike | None = None,
        teachers: Sequence[TeacherSpec] | None = None,
    ) -> Job:
        """The same data under another recipe; teachers too, unless others are given."""
        changed = replace(
            self,
            recipe=recipe,
            student=self.student if student is None else student,
            method=parse_method(recipe.method),
            task=build_task(recipe, self.data),
        )
        if teachers is not None:
            members = [make_teacher(teacher, self.data, self.task) for teacher in teachers]
            changed = replace(changed, teachers=Teachers(members), teacher_logits={})
        if teachers is not None or _replay(recipe) != _replay(self.recipe):
            changed = with_stores(changed)
        return changed

    def build(self, seed: int) -> nn.Module:
        """A fresh student."""
        with seeded(seed, "student"):
            if isinstance(self.student, nn.Module):
                return copy.deepcopy(self.student)
            if isinstance(self.student, str):
                return named_model(self.student, self.data, self.task)
            return self.student(seed)

    def teacher_outputs(self, split: str) -> Tensor | None:
        """The (mean) teacher's logits for every sample of a split, computed once.

        None where a teacher is stored, and its store does not hold them.
        """
        if split not in self.teacher_logits:
            samples = self.data.splits[split]
            said = [one.outputs(samples) for one in self.teachers.to(self.device).members]
            known = [logits for logits in said if logits is not None]
            whole = len(known) == len(said)
            self.teacher_logits[split] = mean_logits(known) if whole else None
        return self.teacher_logits[split]


def _replay(recipe: Recipe) -> tuple[object, int | None]:
    return recipe.training.views, recipe.training.view_count


def make_job(
    recipe: Recipe,
    *,
    student: StudentLike | None = None,
    teachers: Sequence[TeacherLike] | None = None,
    data: Any = None,
) -> Job:
    """Build and check a job; objects take the place of the recipe's names.

    Raises:
        InputError: anything that would stop the run later and can be seen now.
    """
    from limbeck.data.load import load_data

    if student is None and not recipe.student:
        raise InputError("name a student with --student MODEL, for example limbeck:resnet20")
    _refuse_same(student, teachers or [])
    method = parse_method(recipe.method)
    device = choose_device(recipe.training.device)
    loaded = load_data(
        recipe.data if data is None else data, spec=recipe.data, workers=recipe.training.workers
    )
    task = build_task(recipe, loaded)
    task.check(loaded)
    task.better(recipe.training.metric)
    loaded = _on_device(loaded, device)
    student = recipe.student if student is None else student
    given = recipe.teachers if teachers is None else teachers
    members = [make_teacher(teacher, loaded, task) for teacher in given]
    adapter = make_adapter(recipe.input, loaded)
    job = Job(recipe, loaded, task, student, adapter, Teachers(members), method, device)
    job = with_stores(job)
    check_stores(job)
    return job


def _refuse_same(student: object, teachers: Sequence[object]) -> None:
    if any(student is teacher for teacher in teachers):
        raise InputError(
            "student and teacher are the same object; training the student would change the "
            "teacher: pass a copy.deepcopy of it as the student"
        )


def _on_device(data: Data, device: torch.device) -> Data:
    def move(split: Split | None) -> Any:
        return None if split is None else split.to(device)

    return replace(
        data,
        train=move(data.train),
        val=move(data.val),
        test=move(data.test),
        pool=move(data.pool),
    )


def make_teacher(given: TeacherLike, data: Data, task: Task) -> Teacher:
    """A teacher from what the user gave.

    Raises:
        InputError: no weights, or outputs that cannot be mapped to the data's classes.
    """
    if isinstance(given, TeacherStore):
        return Stored(given, data.classes)
    if isinstance(given, nn.Module):
        return own_teacher(given, data)
    spec = TeacherSpec(model=given) if isinstance(given, str) else given
    reference = parse_ref(spec.model)
    if reference.source == "store":
        return open_store(reference, spec, data)
    return named_teacher(spec, data, task)


def check_models(job: Job, student: nn.Module) -> None:
    """Run student and teachers on two samples and compare the widths of their outputs.

    Raises:
        InputError: a model that fails on the data, or outputs of another width than the task's.
    """
    batch = job.data.train.fetch(torch.arange(min(2, len(job.data.train)), device=job.device))
    _check_width(Forward(student.to(job.device), job.adapter.to(job.device)), batch, job, "student")
    job.teachers.to(job.device)
    for teacher in job.teachers.members:
        logits = attempt(partial(_logits, teacher, batch), f"teacher {teacher.name!r}", batch)
        compare_width(logits, job.task, job.data, f"teacher {teacher.name!r}")


def check_batch(job: Job, student: nn.Module, batch: Record) -> None:
    """Run a copy of the student in training mode on the beginning of a batch of the training.

    Raises:
        InputError: it only works in evaluation, as batch normalization of one sample does.
    """
    trial = Forward(copy.deepcopy(student).train(), job.adapter)
    with seeded(job.recipe.seed, "trial"), torch.no_grad():
        x = batch["x"][:2]
        who = (
            "student, in training,"
            if len(x) > 1
            else "student, in batches of one (training.batch, training.accumulate),"
        )
        attempt(lambda: trial(x)["logits"], who, batch)


def _logits(teacher: Teacher, batch: Record) -> Tensor:
    return teacher(batch)["logits"]


def _check_width(forward: Forward, batch: Record, job: Job, who: str) -> None:
    training = forward.model.training
    forward.model.eval()
    with torch.no_grad():
        logits = attempt(lambda: forward(batch["x"])["logits"], who, batch)
    forward.model.train(training)
    compare_width(logits, job.task, job.data, who)


def attempt(call: Callable[[], T], who: str, batch: Record) -> T:
    """What `call` returns.

    Raises:
        InputError: it failed; says what `who` was given.
    """
    try:
        return call()
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"the {who} cannot take samples of shape {tuple(batch['x'].shape[1:])} "
            f"({str(batch['x'].dtype).removeprefix('torch.')}): {reason}"
        ) from None


def compare_width(logits: Tensor, task: Task, data: Data, who: str) -> None:
    """Refuse logits of another width than the task's."""
    if logits.ndim != 2 or logits.shape[1] != task.outputs:
        raise InputError(
            f"the {who} gives outputs of shape {tuple(logits.shape[1:])}, but the data has "
            f"{task.outputs} classes ({', '.join(data.classes[:5])}, ...); build it for "
            f"{task.outputs} classes"
            + (
                ", or say in the teacher's 'classes' what each output stands for"
                if "teacher" in who
                else ""
            )
        )
