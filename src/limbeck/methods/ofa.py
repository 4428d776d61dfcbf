"""One for all (OFA-KD): exits on the student's stages, for unlike architectures."""

from __future__ import annotations

import functools
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from limbeck.data.base import Record
from limbeck.errors import InputError
from limbeck.functional import ofa_loss
from limbeck.methods.base import Clock, Setting, TapPair
from limbeck.methods.term import TermModule, TermSpec
from limbeck.nn.heads import Exit
from limbeck.nn.pairs import stages


class OfaSpec(TermSpec):
    """OFA-KD as in Hao840/OFAKD, where each exit counts like the output.

    Attributes:
        taps: the student's modules that get an exit, the shallowest first; "auto": its stages.
        temperature: of student and teacher.
        gamma: exponent that favors the target, see `limbeck.functional.ofa_loss`.
    """

    name: Literal["ofa"] = "ofa"
    taps: Annotated[list[str], Field(min_length=1)] | Literal["auto"] = "auto"
    temperature: Annotated[float, Field(gt=0)] = 1.0
    gamma: Annotated[float, Field(gt=0)] = 1.0


class Ofa(TermModule):
    """The teacher's logits at an exit of each stage (Hao et al., NeurIPS 2023).

    Only logits are compared, so that nothing about the teacher's layers matters. Earlier exits
    have more blocks. It reads the labelled samples.
    """

    Spec: ClassVar[type[TermSpec]] = OfaSpec
    labeled = True
    spec: OfaSpec

    def __init__(self, spec: OfaSpec, setting: Setting) -> None:
        super().__init__(spec, setting)
        auto = spec.taps == "auto"
        self.student_taps = tuple(stages(setting.student_paths, "student") if auto else spec.taps)
        seen = setting.observe(self.student_taps, ())
        shapes = [tuple(seen[f"student.{tap}"].shape[1:]) for tap in self.student_taps]
        self.exits = nn.ModuleList(
            _exit(shape, setting.classes, len(shapes) - place, tap)
            for place, (shape, tap) in enumerate(zip(shapes, self.student_taps, strict=True))
        )
        self.shapes = shapes

    def describe(self) -> list[TapPair]:
        """Each exit: a stage of the student beside the teacher's logits."""
        pairs = zip(self.student_taps, self.shapes, strict=True)
        logits = "logits", (self.setting.classes,)
        return [TapPair(self.spec.name, tap, shape, *logits) for tap, shape in pairs]

    def forward(self, batch: Record, clock: Clock) -> Tensor:  # noqa: D102
        teacher, y = self.read(batch, "teacher.logits"), self.read(batch, "y")
        loss = functools.partial(ofa_loss, temperature=self.spec.temperature, gamma=self.spec.gamma)
        losses = [
            loss(branch(self.read(batch, f"student.{tap}")), teacher, y)
            for tap, branch in zip(self.student_taps, self.exits, strict=True)
        ]
        return functools.reduce(torch.add, losses)


def _exit(shape: tuple[int, ...], classes: int, depth: int, tap: str) -> nn.Module:
    if len(shape) == 1:
        return nn.Linear(shape[0], classes)
    if len(shape) > 3:
        raise InputError(
            f"an exit of OFA takes vectors, tokens or maps, but the tap {tap!r} has shape {shape}"
        )
    tokens = len(shape) == 2
    return Exit(shape[1] if tokens else shape[0], classes, depth=depth, tokens=tokens)
