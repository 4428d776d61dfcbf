"""Variational information distillation (VID)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, cast

from pydantic import Field
from torch import Tensor, nn

from limbeck.functional import vid_loss
from limbeck.methods.base import Setting
from limbeck.methods.features import TapSpec, TapTerm
from limbeck.nn.heads import VariationalHead


class VidSpec(TapSpec):
    """VID: weight 1 as in HobbitLong/RepDistiller@b84f547.

    Attributes:
        variance: of every channel at the start.
    """

    name: Literal["vid"] = "vid"
    variance: Annotated[float, Field(ge=0.01)] = 5.0


class Vid(TapTerm):
    """A Gaussian around a prediction of the teacher's maps (Ahn et al., CVPR 2019)."""

    Spec: ClassVar[type[TapSpec]] = VidSpec
    spec: VidSpec

    def __init__(self, spec: VidSpec, setting: Setting) -> None:
        super().__init__(spec, setting)
        adapters = self.map_adapters(grid=True)
        self.adapters = nn.ModuleList(adapters)
        self.heads = nn.ModuleList(
            VariationalHead(a.student_shape[0], a.teacher_shape[0], variance=spec.variance)
            for a in adapters
        )

    def pair_loss(self, place: int, student: Tensor, teacher: Tensor) -> Tensor:  # noqa: D102
        student, teacher = self.adapters[place](student, teacher)
        head = cast(VariationalHead, self.heads[place])
        return vid_loss(head(student), teacher, log_scale=head.log_scale)
