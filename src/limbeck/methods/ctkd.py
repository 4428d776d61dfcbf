"""Curriculum temperature (CTKD): KD at a temperature that learns to make it harder."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from limbeck.data.base import Record
from limbeck.functional import ctkd_loss, ctkd_strength
from limbeck.methods.base import Clock, Setting
from limbeck.methods.term import TermModule, TermSpec, Weight


class CtkdSpec(TermSpec):
    """CTKD, the global version, as in zhengli97/CTKD@7d52522.

    Attributes:
        start: the lowest temperature.
        span: the highest is `start` + `span`.
        epochs: over which the temperature's adversarial gradient grows to its full strength.
        kind: how it grows.
        standardize: standardize both logits first.
    """

    name: Literal["ctkd"] = "ctkd"
    weight: Weight = 0.9
    label_weight: Weight = 0.1
    start: Annotated[float, Field(gt=0)] = 1.0
    span: Annotated[float, Field(ge=0)] = 20.0
    epochs: Annotated[float, Field(gt=0)] = 10.0
    kind: Literal["cosine", "linear"] = "cosine"
    standardize: bool = False


class Ctkd(TermModule):
    """KD at a learned temperature (Li et al., AAAI 2023), trained with the student's optimiser."""

    Spec: ClassVar[type[TermSpec]] = CtkdSpec
    spec: CtkdSpec

    def __init__(self, spec: CtkdSpec, setting: Setting) -> None:
        super().__init__(spec, setting)
        self.theta = nn.Parameter(torch.ones(1))

    def forward(self, batch: Record, clock: Clock) -> Tensor:  # noqa: D102
        spec = self.spec
        return ctkd_loss(
            self.read(batch, "student.logits"),
            self.read(batch, "teacher.logits"),
            self.theta,
            strength=ctkd_strength(clock.epoch, kind=spec.kind, epochs=spec.epochs),
            start=spec.start,
            span=spec.span,
            standardize=spec.standardize,
        )
