"""The contract of a term: one summand of a loss, with whatever modules it trains."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from limbeck.data.base import Record
from limbeck.errors import InputError
from limbeck.methods.balance import Balance
from limbeck.methods.base import Clock, MethodSpec, Setting, TapPair

if TYPE_CHECKING:
    from limbeck.engine.engine import Engine

Weight = Annotated[float, Field(ge=0)]


class TermSpec(MethodSpec):
    """The configuration of a term.

    Attributes:
        weight: factor of the term.
        label_weight: factor of the supervised loss beside it, where the term stands alone.
        balance: scale the term, on features each pair of taps, by a running ratio of gradient
            norms, so that weight 1 means the same everywhere: as strong a pull as the labels'.
        samples: which rows of a batch the term sees: `all`, the `labeled` or those of the `pool`.
    """

    weight: Weight = 1.0
    label_weight: Weight = 1.0
    balance: bool = False
    samples: Literal["all", "labeled", "pool"] = "all"


class TermModule(nn.Module):
    """One summand of a loss; terms add up freely, see `limbeck.methods.terms`.

    A subclass builds its adapters and heads in `__init__`, from the shapes that
    `setting.observe(student_taps, teacher_taps)` shows; they are trained with the student and
    dropped at its export.

    Attributes:
        Spec: the term's typed configuration.
        student_taps: module paths of the student that it reads, as `student.PATH`.
        teacher_taps: module paths of the teacher that it reads, as `teacher.PATH`.
        needs_teacher: whether it reads anything of a teacher.
        coupled: whether it relates the samples of a batch to one another.
        labeled: whether it reads `y`, and so the labelled rows of a batch only.
    """

    Spec: ClassVar[type[TermSpec]] = TermSpec
    student_taps: Sequence[str] = ()
    teacher_taps: Sequence[str] = ()
    needs_teacher: bool = True
    labeled: bool = False
    coupled: bool = False

    def __init__(self, spec: TermSpec, setting: Setting) -> None:
        super().__init__()
        self.spec = spec
        self.setting = setting
        self.balance = Balance(1) if spec.balance else None
        if spec.samples == "pool" and setting.pool is None:
            raise InputError(
                f"{spec.name!r} is for samples of the pool, and the data has none; give some with "
                f"--data.unlabeled POOL, or keep some labels only with --data.labels N"
            )

    def describe(self) -> Sequence[str | TapPair]:
        """What was chosen where the recipe said `auto`, told before the first step."""
        return []

    def prepare(self, engine: Engine) -> None:
        """As `Method.prepare`."""

    def begin_epoch(self, engine: Engine) -> None:
        """As `Method.begin_epoch`."""

    def forward(self, batch: Record, clock: Clock) -> Tensor:
        """The summand, a scalar, before balance and weight."""
        raise NotImplementedError

    def parts(self, batch: Record, clock: Clock) -> list[tuple[Tensor, list[Tensor]]]:
        """What balance scales one by one: scalars, and the student's tensors behind each."""
        reads = self.student_taps or ("logits",)
        return [(self(batch, clock), [batch[f"student.{path}"] for path in reads])]

    def balanced(self, batch: Record, clock: Clock) -> Tensor:
        """The summand, a scalar, before its weight; balanced where the spec says so."""
        own = _rows(batch, self.spec.samples)
        if self.balance is None:
            loss: Tensor = self(own, clock)
            return loss
        losses, features = zip(*self.parts(own, clock), strict=True)
        labels = self.setting.task.loss(batch["student.logits"], batch)
        scaled: Tensor = functools.reduce(torch.add, self.balance(losses, features, labels))
        return scaled

    def read(self, batch: Record, key: str) -> Tensor:
        """One entry of the batch; its labelled rows only, where the term reads labels.

        Raises:
            InputError: nothing is recorded under that key.
        """
        if key not in batch:
            raise InputError(
                f"the term {self.spec.name!r} reads {key!r}, which is not recorded; recorded are "
                f"{', '.join(sorted(batch))}"
            )
        value = batch[key]
        # A slice that takes all rows would still cost the backward pass a copy.
        return value[: len(batch["y"])] if self.labeled and len(value) > len(batch["y"]) else value


def _rows(batch: Record, samples: str) -> Record:
    """The rows of a batch that are labelled, or those that are not."""
    labeled, total = len(batch.get("y", ())), len(batch["student.logits"])
    if samples == "all" or (samples == "labeled" and labeled == total):
        return batch
    place = slice(0, labeled) if samples == "labeled" else slice(labeled, total)
    part = {key: value[place] for key, value in batch.items() if len(value) == total}
    return part | ({"y": batch["y"]} if samples == "labeled" else {})
