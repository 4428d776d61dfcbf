"""Distillation with the teacher's own classifier (SimKD)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from limbeck.data.base import Record
from limbeck.errors import InputError
from limbeck.functional import simkd_loss
from limbeck.methods.base import Clock, Method, MethodSpec, Setting, TapPair
from limbeck.methods.classifiers import (
    FrozenClassifier,
    check_pooled,
    classifier_path,
)
from limbeck.methods.features import TapPairs, chosen_pairs, one_pair, one_teacher, tap_pairs
from limbeck.methods.term import Weight
from limbeck.nn.adapters import Adapter, Shape
from limbeck.nn.heads import ReuseProjector


class SimKDSpec(MethodSpec):
    """SimKD as in DefangChen/SimKD@2b389c3: no labels, no logits.

    Attributes:
        weight: of the one loss.
        taps: the last maps of (student, teacher) before the average.
        factor: the projector's middle has 1 / `factor` of the teacher's channels.
    """

    name: Literal["simkd"] = "simkd"
    weight: Weight = 1.0
    taps: TapPairs = "auto"
    factor: Annotated[int, Field(ge=1)] = 2


class SimKD(Method):
    """The student predicts with the teacher's classifier (Chen et al., CVPR 2022).

    The projector becomes a part of the student, after the tapped module, and the teacher's frozen
    classifier takes the place of the student's: what is delivered is one plain network.
    """

    Spec: ClassVar[type[MethodSpec]] = SimKDSpec

    def __init__(self, student: nn.Module, setting: Setting, spec: SimKDSpec) -> None:
        super().__init__(student, setting)
        one_teacher(setting, spec.name)
        self.spec = spec
        pairs = chosen_pairs(spec.taps, setting, "last")
        one_pair(pairs, spec.name)
        self.student_tap, self.teacher_tap = pairs[0]
        self.student_taps, self.teacher_taps = (self.student_tap,), (self.teacher_tap,)
        seen = setting.observe(self.student_taps, self.teacher_taps)
        maps = [seen[f"student.{self.student_tap}"], seen[f"teacher.{self.teacher_tap}"]]
        self.shapes = tuple(maps[0].shape[1:]), tuple(maps[1].shape[1:])
        self._rebuild(FrozenClassifier(setting), self.shapes)
        self.adapter = Adapter(self._shape(), self.shapes[1], channels=False, maps=True)

    def describe(self) -> list[TapPair]:
        """The pair of taps, with the shapes of one sample."""
        return tap_pairs(self.spec.name, [(self.student_tap, self.teacher_tap)], [self.shapes])

    def _rebuild(self, classifier: FrozenClassifier, shapes: tuple[Shape, Shape]) -> None:
        """Put the projector and the teacher's classifier into the student."""
        if any(len(shape) != 3 for shape in shapes):
            raise InputError(
                f"simkd projects maps (C, H, W), but the taps {self.student_tap!r} and "
                f"{self.teacher_tap!r} have shapes {shapes[0]} and {shapes[1]}"
            )
        channels, width = shapes[0][0], shapes[1][0]
        check_pooled("teacher", width, classifier.weight.shape[1], self.teacher_tap)
        layer = self.student.get_submodule(self.student_tap)
        projector = ReuseProjector(channels, width, factor=self.spec.factor)
        last = classifier_path(self.setting, "student")
        self.student.set_submodule(self.student_tap, nn.Sequential(layer, projector))
        self.student.set_submodule(last, classifier.layer())

    def _shape(self) -> tuple[int, ...]:
        """Of the projected maps; the student is run as it now is."""
        try:
            seen = self.setting.observe(self.student_taps, ())
        except RuntimeError as error:
            raise InputError(
                f"the student does not average the maps of {self.student_tap!r} right before its "
                f"classifier, which simkd needs ({str(error).splitlines()[0]})"
            ) from None
        return tuple(seen[f"student.{self.student_tap}"].shape[1:])

    def losses(self, batch: Record, clock: Clock) -> dict[str, Tensor]:
        """The difference of the projected maps to the teacher's."""
        student, teacher = (
            batch[f"student.{self.student_tap}"],
            batch[f"teacher.{self.teacher_tap}"],
        )
        return {"simkd": self.spec.weight * simkd_loss(*self.adapter(student, teacher))}
