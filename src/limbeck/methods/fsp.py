"""The flow of the solution procedure (FSP)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from torch import Tensor, nn

from limbeck.data.base import Record
from limbeck.errors import InputError
from limbeck.functional import fsp_loss
from limbeck.methods.base import Clock, Setting
from limbeck.methods.features import AdapterSpec, TapSpec, TapTerm, make_adapter
from limbeck.methods.term import Weight


class FspSpec(AdapterSpec):
    """FSP with the weight of HobbitLong/RepDistiller@b84f547, there in a stage of its own.

    Attributes:
        pool: how the larger of two layers comes to the grid of the smaller.
    """

    name: Literal["fsp"] = "fsp"
    weight: Weight = 50.0
    pool: Literal["average", "max"] = "average"


class Fsp(TapTerm):
    """How features change from stage to stage (Yim et al., CVPR 2017)."""

    Spec: ClassVar[type[TapSpec]] = FspSpec
    spec: FspSpec

    def __init__(self, spec: FspSpec, setting: Setting) -> None:
        super().__init__(spec, setting)
        if len(self.pairs) < 2:
            raise InputError(
                f"fsp compares two or more stages, but there is one pair of taps: {self.pairs[0]}"
            )
        self.adapters = nn.ModuleList(
            make_adapter(spec, *shapes, "channels") for shapes in self.shapes
        )

    def pair_losses(  # noqa: D102
        self, features: Sequence[tuple[Tensor, Tensor]], batch: Record, clock: Clock
    ) -> list[Tensor]:
        maps = [adapter(*pair) for adapter, pair in zip(self.adapters, features, strict=True)]
        students, teachers = [student for student, _ in maps], [teacher for _, teacher in maps]
        return [fsp_loss(students, teachers, pool=self.spec.pool)]
