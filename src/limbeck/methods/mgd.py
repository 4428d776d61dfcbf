"""Masked generative distillation (MGD)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from limbeck.data.base import Record
from limbeck.data.random import derive, uniforms
from limbeck.functional import mgd_loss
from limbeck.methods.base import Clock, Setting
from limbeck.methods.features import TapSpec, TapTerm, Where
from limbeck.nn.heads import MaskedGenerator


class MgdSpec(TapSpec):
    """MGD as published for classification.

    Attributes:
        alpha: factor on the sum over a sample's elements.
        ratio: share that is masked.
        mask: whole "channels", or "positions" (dense prediction: ratio 0.75, alpha 2e-5).
    """

    name: Literal["mgd"] = "mgd"
    alpha: Annotated[float, Field(gt=0)] = 7e-5
    ratio: Annotated[float, Field(ge=0, lt=1)] = 0.15
    mask: Literal["positions", "channels"] = "channels"


class Mgd(TapTerm):
    """The teacher's last maps, restored from the student's masked ones (Yang et al., ECCV 2022).

    What is masked is a function of (seed, step, sample).
    """

    Spec: ClassVar[type[TapSpec]] = MgdSpec
    where: ClassVar[Where] = "last"
    single = True
    spec: MgdSpec

    def __init__(self, spec: MgdSpec, setting: Setting) -> None:
        super().__init__(spec, setting)
        self.adapter = self.map_adapters(grid=True)[0]
        channels = self.adapter.student_shape[0], self.adapter.teacher_shape[0]
        self.generator = MaskedGenerator(*channels, ratio=spec.ratio, mask=spec.mask)

    def pair_losses(  # noqa: D102
        self, features: Sequence[tuple[Tensor, Tensor]], batch: Record, clock: Clock
    ) -> list[Tensor]:
        student, teacher = self.adapter(*features[0])
        shape = self.generator.mask_shape(student)
        seed = derive(self.setting.seed, "mgd", clock.step)
        uniform = uniforms(batch["index"], math.prod(shape[1:]), seed=seed).view(shape)
        return [mgd_loss(self.generator(student, uniform), teacher, alpha=self.spec.alpha)]
