"""Class attention transfer (CAT-KD)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from limbeck.data.base import Record
from limbeck.functional import catkd_loss, class_activation_maps
from limbeck.methods.base import Clock
from limbeck.methods.classifiers import ClassifierTerm
from limbeck.methods.features import TapSpec
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


class CatKD(ClassifierTerm):
    """Matches the maps that each network's classifier draws of each class (CVPR 2023).

    It trains the student's classifier with the features that it reads.
    """

    Spec: ClassVar[type[TapSpec]] = CatKDSpec
    spec: CatKDSpec

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
