"""Softmax regression representation learning (SRRL)."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from limbeck.functional import srrl_loss
from limbeck.methods.base import Setting
from limbeck.methods.classifiers import FrozenClassifier, check_pooled
from limbeck.methods.features import TapSpec, TapTerm, Where
from limbeck.methods.term import Weight
from limbeck.nn.heads import Connector


class SrrlSpec(TapSpec):
    """SRRL as in jingyang2017/KD_SRRL@d2e802f.

    Attributes:
        feature_weight: factor on the difference of the pooled features.
        logit_weight: factor on the difference of the teacher classifier's words on them.
    """

    name: Literal["srrl"] = "srrl"
    feature_weight: Weight = 1.0
    logit_weight: Weight = 1.0


class Srrl(TapTerm):
    """The teacher's classifier must say the same of the student's features (Yang, ICLR 2021)."""

    Spec: ClassVar[type[TapSpec]] = SrrlSpec
    where: ClassVar[Where] = "last"
    single = True
    spec: SrrlSpec

    def __init__(self, spec: SrrlSpec, setting: Setting) -> None:
        super().__init__(spec, setting)
        self.adapter = self.map_adapters(grid=False)[0]
        channels = self.adapter.student_shape[0], self.adapter.teacher_shape[0]
        self.connector = Connector(*channels)
        self.classifier = FrozenClassifier(setting)
        check_pooled("teacher", channels[1], self.classifier.weight.shape[1], self.pairs[0][1])

    def pair_loss(self, place: int, student: Tensor, teacher: Tensor) -> Tensor:  # noqa: D102
        student, teacher = self.adapter(student, teacher)
        mapped = self.connector(student)
        return srrl_loss(
            mapped,
            teacher,
            self.classifier(mapped.mean((2, 3))),
            self.classifier(teacher.mean((2, 3))),
            feature_weight=self.spec.feature_weight,
            logit_weight=self.spec.logit_weight,
        )
