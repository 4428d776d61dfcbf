"""Distillation through an orthogonal projection (VkD)."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from limbeck.functional import vkd_loss
from limbeck.methods.base import Setting
from limbeck.methods.features import TapSpec, TapTerm, Where
from limbeck.nn.adapters import Adapter, width
from limbeck.nn.heads import OrthogonalProjector


class VkdSpec(TapSpec):
    """VkD as in roymiles/VkD@0c9cc5e."""

    name: Literal["vkd"] = "vkd"


class Vkd(TapTerm):
    """Standardized teacher features, behind a rotation of the student's (Miles, CVPR 2024)."""

    Spec: ClassVar[type[TapSpec]] = VkdSpec
    where: ClassVar[Where] = "penultimate"
    single = True

    def __init__(self, spec: VkdSpec, setting: Setting) -> None:
        super().__init__(spec, setting)
        self.adapter = Adapter(*self.shapes[0], channels=False)
        shapes = self.adapter.student_shape, self.adapter.teacher_shape
        self.axis = 1 if len(shapes[0]) > 2 else -1
        self.projector = OrthogonalProjector(*map(width, shapes))

    def pair_loss(self, place: int, student: Tensor, teacher: Tensor) -> Tensor:  # noqa: D102
        student, teacher = self.adapter(student, teacher)
        projected = self.projector(student.movedim(self.axis, -1)).movedim(-1, self.axis)
        return vkd_loss(projected, teacher)
