"""The last linear layers of student and teacher, for methods that apply one to other features."""

from __future__ import annotations

from typing import ClassVar, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from limbeck.errors import InputError
from limbeck.methods.base import Setting
from limbeck.methods.features import TapSpec, TapTerm, Where

Who = Literal["student", "teacher"]


class FrozenClassifier(nn.Module):
    """A copy of the teacher's last linear layer that is never trained.

    Args:
        setting: facts about the run; its teacher must be a live one.

    Shape:
        (B, features) to (B, K), columns in the order of the data's classes.

    Raises:
        InputError: the teacher has no linear layer, or gives something else than its output.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        path = classifier_path(setting, "teacher")
        layer = cast(nn.Linear, setting.module("teacher", path))
        order = _order(setting, path)
        bias = layer.bias.detach().cpu()[order] if isinstance(layer.bias, Tensor) else None
        self.register_buffer("weight", layer.weight.detach().cpu()[order], persistent=False)
        self.register_buffer("bias", bias, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """The teacher's logits for these features."""
        return linear(features, self.weight, self.bias)

    def layer(self) -> nn.Linear:
        """The same as an ordinary frozen layer."""
        classes, features = self.weight.shape
        layer = nn.Linear(features, classes, bias=self.bias is not None)
        layer.weight.data.copy_(self.weight)
        if self.bias is not None:
            layer.bias.data.copy_(self.bias)
        return layer.requires_grad_(False)


def student_classifier(setting: Setting) -> nn.Linear:
    """The student's last linear layer itself; whoever asks must not register it as a part."""
    return cast(nn.Linear, setting.module("student", classifier_path(setting, "student")))


def classifier_path(setting: Setting, who: Who) -> str:
    """The path of the last linear layer."""
    paths = setting.student_paths if who == "student" else setting.teacher_paths
    found = [path for path in paths if isinstance(setting.module(who, path), nn.Linear)]
    if not found:
        raise InputError(
            f"this method applies the {who}'s linear classifier to other features, and the {who} "
            f"has none"
        )
    return found[-1]


def check_pooled(who: str, channels: int, features: int, path: str) -> None:
    """Refuses a classifier that does not stand on the average of the tapped maps."""
    if channels != features:
        raise InputError(
            f"the {who}'s classifier reads {features} features, but the tap {path!r} has "
            f"{channels} channels; this method needs the last maps before the average: set `taps`"
        )


def _order(setting: Setting, path: str) -> Tensor:
    """Which of the layer's outputs is which of the teacher's logits, by their values."""
    seen = setting.observe((), (path,))
    raw, logits = seen[f"teacher.{path}"], seen["teacher.logits"]
    same = (raw[:, None, :] == logits[:, :, None]).all(0)
    if not bool(same.any(1).all()):
        raise InputError(
            f"the teacher's logits are not the output of its last linear layer {path!r}, which "
            f"this method needs"
        )
    return torch.argmax(same.int(), 1).cpu()


class ClassifierTerm(TapTerm):
    """A term on the last maps, to which both classifiers are applied position by position.

    Attributes:
        adapter: makes maps of both features, each on its own grid.
        teacher_classifier: never trained.
    """

    where: ClassVar[Where] = "last"
    single = True

    def __init__(self, spec: TapSpec, setting: Setting) -> None:
        super().__init__(spec, setting)
        self.adapter = self.map_adapters(grid=False)[0]
        self.teacher_classifier = FrozenClassifier(setting)
        # In a tuple, so that the student's layer does not become a part of this module too.
        self._student_classifier = (student_classifier(setting),)
        student, teacher = self.pairs[0]
        ours, theirs = self._student_classifier[0].weight, self.teacher_classifier.weight
        check_pooled("student", self.adapter.student_shape[0], ours.shape[1], student)
        check_pooled("teacher", self.adapter.teacher_shape[0], theirs.shape[1], teacher)
