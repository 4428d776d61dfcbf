"""Contrastive representation distillation (CRD)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from limbeck.data.base import Record
from limbeck.data.random import derive, uniforms
from limbeck.methods.base import Clock, Setting
from limbeck.methods.features import TapSpec, TapTerm, Where
from limbeck.methods.memory import Rows
from limbeck.methods.term import Weight
from limbeck.nn.memory import ContrastMemory, Embedding


class CrdSpec(TapSpec):
    """CRD as in HobbitLong/RepDistiller@b84f547.

    Attributes:
        size: numbers in an embedding.
        negatives: other samples that a sample is told apart from; never more than there are.
        temperature: of the scores.
        momentum: share of the old row in the memory's new one.
    """

    name: Literal["crd"] = "crd"
    weight: Weight = 0.8
    size: Annotated[int, Field(ge=1)] = 128
    negatives: Annotated[int, Field(ge=1)] = 16384
    temperature: Annotated[float, Field(gt=0)] = 0.07
    momentum: Annotated[float, Field(ge=0, le=1)] = 0.5


class Crd(TapTerm):
    """Tells each training sample from the others by both networks' embeddings (ICLR 2020).

    It reads the labelled samples, which have a row each in two memories. Negatives are drawn over
    all of them and are a function of (seed, step, sample). Every rank keeps its own memory.
    """

    Spec: ClassVar[type[TapSpec]] = CrdSpec
    where: ClassVar[Where] = "penultimate"
    single = True
    labeled = True
    spec: CrdSpec

    def __init__(self, spec: CrdSpec, setting: Setting) -> None:
        super().__init__(spec, setting)
        student, teacher = self.shapes[0]
        self.rows = Rows(setting.ids)
        self.student_embedding = Embedding(math.prod(student), spec.size)
        self.teacher_embedding = Embedding(math.prod(teacher), spec.size)
        self.memory = ContrastMemory(
            len(self.rows),
            spec.size,
            negatives=min(spec.negatives, len(self.rows)),
            temperature=spec.temperature,
            momentum=spec.momentum,
            seed=setting.seed,
        )

    def pair_losses(  # noqa: D102
        self, features: Sequence[tuple[Tensor, Tensor]], batch: Record, clock: Clock
    ) -> list[Tensor]:
        student, teacher = features[0]
        index = self.read(batch, "index")
        ours, theirs = self.student_embedding(student), self.teacher_embedding(teacher)
        return [self.memory(ours, theirs, self.rows(index), self._negatives(index, clock))]

    def _negatives(self, index: Tensor, clock: Clock) -> Tensor:
        seed = derive(self.setting.seed, "crd", clock.step)
        drawn = uniforms(index, self.memory.negatives, seed=seed) * len(self.rows)
        return drawn.long().clamp_max(len(self.rows) - 1)
