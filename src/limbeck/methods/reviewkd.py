"""Distillation by knowledge review (ReviewKD)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from limbeck.data.base import Record
from limbeck.functional import reviewkd_hcl_loss
from limbeck.methods.base import Clock, Setting
from limbeck.methods.features import TapSpec, TapTerm
from limbeck.nn.fusion import ReviewFusion


class ReviewKDSpec(TapSpec):
    """ReviewKD as in dvlab-research/ReviewKD@cede6ea, where the weight is 0.6 to 8 by pair.

    Attributes:
        warmup: share of the training over which the weight grows from zero; 20 epochs of 240.
    """

    name: Literal["reviewkd"] = "reviewkd"
    warmup: Annotated[float, Field(ge=0, le=1)] = 1 / 12


class ReviewKD(TapTerm):
    """Fuses the student's stages, deepest first, to the teacher's (Chen et al., CVPR 2021)."""

    Spec: ClassVar[type[TapSpec]] = ReviewKDSpec
    spec: ReviewKDSpec

    def __init__(self, spec: ReviewKDSpec, setting: Setting) -> None:
        super().__init__(spec, setting)
        adapters = self.map_adapters(grid=False)
        self.adapters = nn.ModuleList(adapters)
        students = [adapter.student_shape[0] for adapter in adapters]
        teachers = [adapter.teacher_shape for adapter in adapters]
        self.fusion = ReviewFusion(
            students, [t[0] for t in teachers], [(t[1], t[2]) for t in teachers]
        )

    def pair_losses(  # noqa: D102
        self, features: Sequence[tuple[Tensor, Tensor]], batch: Record, clock: Clock
    ) -> list[Tensor]:
        maps = [adapter(*pair) for adapter, pair in zip(self.adapters, features, strict=True)]
        fused = self.fusion([student for student, _ in maps])
        loss = reviewkd_hcl_loss(fused, [teacher for _, teacher in maps])
        return [loss * self._growth(clock)]

    def _growth(self, clock: Clock) -> float:
        warmup = self.spec.warmup * clock.steps
        return min((clock.step + 1) / warmup, 1.0) if warmup else 1.0
