"""The contract of a term: one summand of a loss, with whatever modules it trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor, nn

from limbeck.data.base import Record
from limbeck.errors import InputError
from limbeck.methods.base import Clock, MethodSpec, Setting

Weight = Annotated[float, Field(ge=0)]


class TermSpec(MethodSpec):
    """The configuration of a term.

    Attributes:
        weight: factor of the term.
        label_weight: factor of the supervised loss beside it, where the term stands alone.
    """

    weight: Weight = 1.0
    label_weight: Weight = 1.0


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

    def describe(self) -> list[str]:
        """Lines for the log before the first step."""
        return []

    def forward(self, batch: Record, clock: Clock) -> Tensor:
        """The summand, a scalar, before its weight."""
        raise NotImplementedError

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
