"""A comprehensive overhaul of feature distillation (OFD)."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn

from limbeck.errors import InputError
from limbeck.functional import ofd_loss, ofd_margin
from limbeck.methods.base import Setting
from limbeck.methods.features import TapSpec, TapTerm
from limbeck.methods.term import Weight
from limbeck.nn.heads import Connector


class OfdSpec(TapSpec):
    """OFD as in clovaai/overhaul-distillation@76344a8; each earlier pair counts half the next."""

    name: Literal["ofd"] = "ofd"
    weight: Weight = 1e-3


class Ofd(TapTerm):
    """Partial distance to the teacher's features behind a margin ReLU (Heo et al., ICCV 2019).

    The margin is read off the teacher's last batch normalization of the tap's width, at or before
    the tap. The paper taps what comes before the activation; of a tap behind it no value lies
    below the margin, and what is left is the partial distance.
    """

    Spec: ClassVar[type[TapSpec]] = OfdSpec
    spec: OfdSpec

    def __init__(self, spec: OfdSpec, setting: Setting) -> None:
        super().__init__(spec, setting)
        adapters = self.map_adapters(grid=True)
        self.adapters = nn.ModuleList(adapters)
        self.connectors = nn.ModuleList(
            Connector(a.student_shape[0], a.teacher_shape[0], relu=False) for a in adapters
        )
        for place, (_, path) in enumerate(self.pairs):
            width = adapters[place].teacher_shape[0]
            self.register_buffer(f"margin{place}", _margin(setting, path, width), persistent=False)

    def pair_loss(self, place: int, student: Tensor, teacher: Tensor) -> Tensor:  # noqa: D102
        student, teacher = self.adapters[place](student, teacher)
        margin = self.get_buffer(f"margin{place}")
        loss = ofd_loss(self.connectors[place](student), teacher, margin=margin)
        return loss * 0.5 ** (len(self.pairs) - 1 - place)


def _margin(setting: Setting, tap: str, width: int) -> Tensor:
    """The margin of the last batch normalization that has run when the tap gives its output."""
    found = None
    for path in setting.teacher_paths:
        module = setting.module("teacher", path)
        if isinstance(module, nn.BatchNorm2d) and module.num_features == width and module.affine:
            found = module
        if path == tap:
            break
    if found is None:
        raise InputError(
            f"the margin of OFD comes from a batch normalization of {width} channels before the "
            f"tap {tap!r}, and the teacher has none"
        )
    return ofd_margin(found.weight, found.bias).cpu()
