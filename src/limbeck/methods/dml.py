"""Deep mutual learning (DML): students that teach each other while they learn."""

from __future__ import annotations

import copy
import functools
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from limbeck.data.base import Record
from limbeck.functional import dml_loss
from limbeck.methods.base import Method, MethodSpec, Setting
from limbeck.methods.term import Weight
from limbeck.nn.forward import as_record

if TYPE_CHECKING:
    from limbeck.engine.engine import Engine


class DmlSpec(MethodSpec):
    """DML.

    Attributes:
        peers: other networks of the cohort.
        weight: of the divergence from the peers.
        label_weight: of each network's supervised loss.
        temperature: of all.
    """

    name: Literal["dml"] = "dml"
    peers: Annotated[int, Field(ge=1)] = 1
    weight: Weight = 1.0
    label_weight: Weight = 1.0
    temperature: Annotated[float, Field(gt=0)] = 1.0


class Dml(Method):
    """A cohort of networks of the student's kind, each from its own start (Zhang, CVPR 2018).

    All step at once from the same batch; in each one's loss the others are constants, so that one
    update of their sum is an update of each. The first is delivered.
    """

    Spec: ClassVar[type[MethodSpec]] = DmlSpec
    roles = {"student": ("student", "peers")}  # noqa: RUF012
    needs_teacher = False

    def __init__(self, student: nn.Module, setting: Setting, spec: DmlSpec) -> None:
        super().__init__(student, setting)
        self.spec = spec
        self.peers = nn.ModuleList(_afresh(student) for _ in range(spec.peers))

    def step(self, batch: Record, engine: Engine) -> dict[str, Tensor]:
        """One step of the whole cohort."""
        x = engine.adapter(batch["x"])
        peers = [as_record(peer(x))["logits"] for peer in self.peers]
        terms = self.cohort_losses([batch["student.logits"], *peers], batch)
        engine.update("student", functools.reduce(torch.add, terms.values()))
        return terms

    def cohort_losses(self, cohort: list[Tensor], batch: Record) -> dict[str, Tensor]:
        """The labels' and the peers' summand, each the sum over the cohort's logits."""
        divergences = [
            dml_loss(z, cohort[:i] + cohort[i + 1 :], temperature=self.spec.temperature)
            for i, z in enumerate(cohort)
        ]
        labels = [self.setting.task.loss(z, batch) for z in cohort]
        return {
            "dml": self.spec.weight * functools.reduce(torch.add, divergences),
            "labels": self.spec.label_weight * functools.reduce(torch.add, labels),
        }


def _afresh(student: nn.Module) -> nn.Module:
    """A network of the same kind from another start: every layer draws its own reset."""
    peer = copy.deepcopy(student)
    for module in peer.modules():
        reset: Any = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
    return peer
