"""Class attention transfer (CAT-KD)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from limbeck.data.base import Record
from limbeck.functional import catkd_loss, class_activation_maps
from limbeck.methods.base import Clock, Setting
from limbeck.methods.classifiers import FrozenClassifier, check_pooled, student_classifier
from limbeck.methods.features import TapSpec, TapTerm, Where
from limbeck.methods.term import Weight


class CatKDSpec(TapSpec):
    """CAT-KD as in GzyAftermath/CAT-KD@4467073.

    Attributes:
        resolution: side of the grid to which the maps are averaged.
        normalize: divide each map by its norm.
        binarize: make the teacher's maps 1 above their mean size and 0 elsewhere.
        keep: compare the maps of only so many of the teacher's highest classes.
    """

    name: Literal["catkd"] = "catkd"
    weight: Weight = 400.0
    resolution: Annotated[int, Field(ge=1)] = 2
    normalize: bool = True
    binarize: bool = False
    keep: Annotated[int, Field(ge=1)] | None = None


class CatKD(TapTerm):
    """Matches the maps that each network's classifier draws of each class (CVPR 2023).

    It trains the student's classifier with the features that it reads.
    """

    Spec: ClassVar[type[TapSpec]] = CatKDSpec
    where: ClassVar[Where] = "last"
    single = True
    spec: CatKDSpec

    def __init__(self, spec: CatKDSpec, setting: Setting) -> None:
        super().__init__(spec, setting)
        self.adapter = self.map_adapters(grid=False)[0]
        self.teacher_classifier = FrozenClassifier(setting)
        # In a tuple, so that the student's layer does not become a part of this module too.
        self._student_classifier = (student_classifier(setting),)
        student, teacher = self.pairs[0]
        ours, theirs = self._student_classifier[0].weight, self.teacher_classifier.weight
        check_pooled("student", self.adapter.student_shape[0], ours.shape[1], student)
        check_pooled("teacher", self.adapter.teacher_shape[0], theirs.shape[1], teacher)

    def pair_losses(  # noqa: D102
        self, features: Sequence[tuple[Tensor, Tensor]], batch: Record, clock: Clock
    ) -> list[Tensor]:
        ours, theirs = self._student_classifier[0], self.teacher_classifier
        student, teacher = self.adapter(*features[0])
        loss = catkd_loss(
            class_activation_maps(student, ours.weight, ours.bias),
            class_activation_maps(teacher, theirs.weight, theirs.bias),
            resolution=self.spec.resolution,
            normalize=self.spec.normalize,
            binarize=self.spec.binarize,
            keep=self.spec.keep,
            teacher_logits=self.read(batch, "teacher.logits"),
        )
        return [loss]
