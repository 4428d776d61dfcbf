"""Self-distillation from the epoch before (PS-KD)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from limbeck.data.base import Record
from limbeck.functional import pskd_loss, pskd_weight
from limbeck.methods.base import Clock, Setting
from limbeck.methods.memory import Rows
from limbeck.methods.term import TermModule, TermSpec, Weight

CERTAIN = 100.0
"""Logit of the target that makes a softmax one-hot."""


class PskdSpec(TermSpec):
    """PS-KD as in lgcnsai/PS-KD-Pytorch@9aa0828; its loss holds the labels already.

    Attributes:
        final: weight of the past in the last epoch; it grows linearly from epoch to epoch.
    """

    name: Literal["pskd"] = "pskd"
    label_weight: Weight = 0.0
    final: Annotated[float, Field(ge=0, le=1)] = 0.8


class Pskd(TermModule):
    """Targets mix the labels with the student's own word an epoch ago (Kim et al., ICCV 2021).

    The logits of every labelled training sample are remembered in a buffer. A sample without a
    past has its label alone for target. Every rank keeps its own memory.
    """

    Spec: ClassVar[type[TermSpec]] = PskdSpec
    needs_teacher = False
    labeled = True
    spec: PskdSpec
    past: Tensor

    def __init__(self, spec: PskdSpec, setting: Setting) -> None:
        super().__init__(spec, setting)
        self.rows = Rows(setting.ids)
        self.register_buffer("past", torch.full((len(self.rows), setting.classes), torch.nan))

    def forward(self, batch: Record, clock: Clock) -> Tensor:  # noqa: D102
        logits, y = self.read(batch, "student.logits"), self.read(batch, "y")
        rows = self.rows(self.read(batch, "index"))
        loss = pskd_loss(logits, self._recall(rows, y), y, weight=self._weight(clock))
        if self.training:
            self.past[rows] = logits.detach().to(self.past.dtype)
        return loss

    def _recall(self, rows: Tensor, y: Tensor) -> Tensor:
        past = self.past[rows]
        label = torch.zeros_like(past).scatter(1, y[:, None], CERTAIN)
        return torch.where(past.isnan(), label, past)

    def _weight(self, clock: Clock) -> float:
        epochs = clock.steps // clock.steps_per_epoch
        return pskd_weight(clock.epoch, epochs, final=self.spec.final)
