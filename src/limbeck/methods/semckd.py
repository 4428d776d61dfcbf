"""Cross-layer distillation with semantic calibration (SemCKD)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from limbeck.data.base import Record
from limbeck.errors import InputError
from limbeck.functional import semckd_loss
from limbeck.methods.base import Clock, Setting
from limbeck.methods.features import TapSpec, TapTerm
from limbeck.methods.term import Weight
from limbeck.nn.fusion import LayerAssociation


class SemCKDSpec(TapSpec):
    """SemCKD as in DefangChen/SemCKD@ebe5db1.

    Attributes:
        batch: the most labelled samples that a step can have: part of the attention's shape.
    """

    name: Literal["semckd"] = "semckd"
    weight: Weight = 400.0
    batch: Annotated[int, Field(ge=4)] = 64


class SemCKD(TapTerm):
    """Each student stage learns from all teacher stages, by attention (Chen et al., AAAI 2021).

    It reads the labelled samples.
    """

    Spec: ClassVar[type[TapSpec]] = SemCKDSpec
    labeled = True
    coupled = True
    spec: SemCKDSpec

    def __init__(self, spec: SemCKDSpec, setting: Setting) -> None:
        super().__init__(spec, setting)
        adapters = self.map_adapters(grid=False)
        self.adapters = nn.ModuleList(adapters)
        self.association = LayerAssociation(
            [adapter.student_shape[0] for adapter in adapters],
            [adapter.teacher_shape[0] for adapter in adapters],
            batch=spec.batch,
        )

    def pair_losses(  # noqa: D102
        self, features: Sequence[tuple[Tensor, Tensor]], batch: Record, clock: Clock
    ) -> list[Tensor]:
        rows = len(features[0][0])
        if rows > self.spec.batch:
            raise InputError(
                f"semckd was built for batches of {self.spec.batch} samples, got {rows}: set "
                f"method.batch to training.batch"
            )
        maps = [adapter(*pair) for adapter, pair in zip(self.adapters, features, strict=True)]
        students, teachers = [student for student, _ in maps], [teacher for _, teacher in maps]
        return [semckd_loss(*self.association(students, teachers))]
