"""The contract of a method: how the student learns from its teachers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from limbeck.data.base import Record
from limbeck.errors import InputError
from limbeck.recipe.spec import Spec

if TYPE_CHECKING:
    from limbeck.engine.engine import Engine
    from limbeck.tasks.base import Task


@dataclass(frozen=True)
class Clock:
    """Where a training stands.

    Attributes:
        step: steps done so far.
        steps: steps in the whole training.
        steps_per_epoch: steps in an epoch.
    """

    step: int
    steps: int
    steps_per_epoch: int

    @property
    def epoch(self) -> int:
        """Epochs done so far."""
        return self.step // self.steps_per_epoch

    @property
    def progress(self) -> float:
        """Share of the training that is done, in [0, 1)."""
        return self.step / self.steps


@dataclass(frozen=True)
class Setting:
    """What a method may know when it is built.

    Attributes:
        task: supervised loss and metrics.
        classes: width of the logits.
        ids: of the labelled training samples, in their order, on the CPU.
        teachers: how many teachers there are.
        live: whether the teachers can be run on inputs of the method's own.
        seed: for the initialisation of the method's own modules.
        observe: runs student and teachers on two samples and returns the record, with the
            given taps of each; for adapters that need the shapes.
        module: the module at a path of the "student" or of the (first) "teacher".
        survey: "student" or "teacher" to every module path with the shape of its output for one
            sample.
        pool: ids of the unlabelled samples, in their order, on the CPU; None without any.
        earlier: the method's state in the run that stands in a folder, from its last checkpoint.
    """

    task: Task
    classes: int
    ids: Tensor
    teachers: int
    live: bool
    seed: int
    observe: Callable[[Sequence[str], Sequence[str]], Record]
    module: Callable[[str, str], nn.Module]
    survey: Callable[[str], Mapping[str, tuple[int, ...]]]
    pool: Tensor | None = None
    earlier: Callable[[str], Mapping[str, Tensor]] | None = None

    @cached_property
    def student_paths(self) -> Mapping[str, tuple[int, ...]]:
        """Where the student can be tapped, in the order of the calls, with shapes."""
        return self.survey("student")

    @cached_property
    def teacher_paths(self) -> Mapping[str, tuple[int, ...]]:
        """Where the (first) teacher can be tapped, in the order of the calls, with shapes."""
        return self.survey("teacher")


@dataclass(frozen=True)
class TapPair:
    """Features that a method compares, as `Method.describe` tells them.

    Attributes:
        term: the method's or the term's name.
        student: module path.
        student_shape: of the features of one sample.
        teacher: module path.
        teacher_shape: of the features of one sample.
    """

    term: str
    student: str
    student_shape: tuple[int, ...]
    teacher: str
    teacher_shape: tuple[int, ...]

    @property
    def cells(self) -> tuple[str, str, str, str, str]:
        """All of it in words."""
        ours, theirs = (" x ".join(map(str, s)) for s in (self.student_shape, self.teacher_shape))
        return self.term, self.student, ours, self.teacher, theirs

    def __str__(self) -> str:
        return "{}: student {} ({}) follows teacher {} ({})".format(*self.cells)


def several_teachers(setting: Setting, name: str) -> None:
    """Refuses a run with fewer than two teachers."""
    if setting.teachers < 2:
        raise InputError(
            f"the method {name!r} needs at least two teachers, there are {setting.teachers}: give "
            f"more with --teachers A B, or use method kd"
        )


class MethodSpec(Spec):
    """The typed configuration of a method; `name` is how it is found."""

    name: str


@dataclass(frozen=True)
class Term:
    """One summand of a loss that you wrote yourself: a plain loss becomes a method in one line.

    Where it reads `y`, it sees the labelled rows of a batch only.

    Attributes:
        name: its name in the log.
        loss: a pure function of the tensors under `keys`; returns a scalar.
        keys: what it reads from the batch, e.g. `("student.logits", "teacher.logits", "y")`.
        weight: factor of the summand.
    """

    name: str
    loss: Callable[..., Tensor]
    keys: tuple[str, ...]
    weight: float = 1.0


class Method(nn.Module):
    """How a student learns. A subclass is final: it overrides what it needs, once.

    Most methods override `losses`; a training that is more than one update a step overrides
    `step` and asks the engine for gradients. A method sees no device, rank, file or optimiser.

    Attributes:
        Spec: the method's typed configuration.
        roles: which sub-modules each optimiser trains.
        needs_teacher: whether it can work without one.
        uses_pool: whether it learns from unlabelled samples; else batches hold none.
        partial_teachers: whether it hears teachers that know only some of the classes, whose other
            logits are -inf.
        online: whether it runs the teachers on inputs of its own (stored outputs cannot serve).
        raw: get the batch only; neither student nor teachers are run beforehand.
        differentiates: whether `step` calls `engine.grads` (refused under `strategy: shard`).
        coupled: names of the summands that relate the samples of a batch to one another; ranks
            and micro-batches each see their own share of the batch.
        student_taps: module paths of the student that the engine records.
        teacher_taps: module paths of the teachers that the engine records.
    """

    Spec: ClassVar[type[MethodSpec]]
    roles: Mapping[str, Sequence[str]] = {"student": ("student",)}
    needs_teacher: bool = True
    uses_pool: bool = True
    partial_teachers: bool = False
    online: bool = False
    raw: bool = False
    differentiates: bool = False
    coupled: Sequence[str] = ()
    student_taps: Sequence[str] = ()
    teacher_taps: Sequence[str] = ()

    def __init__(self, student: nn.Module, setting: Setting) -> None:
        super().__init__()
        self.student = student
        self.setting = setting

    def describe(self) -> Sequence[str | TapPair]:
        """What was chosen where the recipe said `auto`, told before the first step."""
        return []

    def prepare(self, engine: Engine) -> None:
        """A stage before the training; what it leaves in the method's state is checkpointed."""

    def begin_epoch(self, engine: Engine) -> None:
        """What is done before the first step of every epoch, a resumed one too."""

    def losses(self, batch: Record, clock: Clock) -> dict[str, Tensor]:
        """The summands of the student's loss, weights included, by name."""
        raise NotImplementedError

    def step(self, batch: Record, engine: Engine) -> dict[str, Tensor]:
        """One step of training; what it returns is logged."""
        return self.descend(self.losses(batch, engine.clock), engine)

    def descend(self, terms: dict[str, Tensor], engine: Engine) -> dict[str, Tensor]:
        """One step of the student down the sum of `terms`, which are returned to be logged."""
        values = list(terms.values())
        engine.update("student", sum(values[1:], values[0]))
        return terms

    def predict(self, batch: Record) -> Tensor:
        """The logits that are evaluated, from a batch with the student's outputs."""
        return batch["student.logits"]
