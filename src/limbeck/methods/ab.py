"""Distillation of activation boundaries (AB)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from limbeck.functional import ab_loss
from limbeck.methods.base import Setting
from limbeck.methods.features import TapSpec, TapTerm
from limbeck.methods.term import Weight
from limbeck.nn.heads import Connector


class AbSpec(TapSpec):
    """AB as in bhheo/AB_distillation@a7701d3; each earlier pair counts half of the next.

    Attributes:
        margin: distance from zero beyond which the student pays nothing.
    """

    name: Literal["ab"] = "ab"
    weight: Weight = 3e-3
    margin: Annotated[float, Field(gt=0)] = 1.0


class Ab(TapTerm):
    """The student's neurons stand on the teacher's side of zero (Heo et al., AAAI 2019).

    The paper taps what comes before the activation; after it a teacher's neuron is on where it is
    above zero, which is the same boundary.
    """

    Spec: ClassVar[type[TapSpec]] = AbSpec
    spec: AbSpec

    def __init__(self, spec: AbSpec, setting: Setting) -> None:
        super().__init__(spec, setting)
        adapters = self.map_adapters(grid=True)
        self.adapters = nn.ModuleList(adapters)
        self.connectors = nn.ModuleList(
            Connector(a.student_shape[0], a.teacher_shape[0], relu=False) for a in adapters
        )

    def pair_loss(self, place: int, student: Tensor, teacher: Tensor) -> Tensor:  # noqa: D102
        student, teacher = self.adapters[place](student, teacher)
        loss = ab_loss(self.connectors[place](student), teacher, margin=self.spec.margin)
        return loss * 0.5 ** (len(self.pairs) - 1 - place)
