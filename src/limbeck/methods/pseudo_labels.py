"""Other ways to learn from a pool that a teacher labels: what SLaM and weights are measured by."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
import torch.nn.functional as tf
from pydantic import Field
from torch import Tensor

from limbeck.data.base import Record
from limbeck.functional import fit_temperature, forward_loss, taylor_loss
from limbeck.methods.base import Setting
from limbeck.methods.pool import Evidence, PoolSpec, PoolTerm
from limbeck.methods.term import TermSpec

if TYPE_CHECKING:
    from limbeck.engine.engine import Engine

_GONE = 0.1
"""A class of which less than this share of the samples passes a threshold is nearly lost."""


def label_loss(student: Tensor, teacher: Tensor, *, hard: bool) -> Tensor:
    """Cross-entropy on the teacher's likeliest class, or on its probabilities, [B, C] to [B]."""
    target = teacher.argmax(1) if hard else teacher.float().softmax(1)
    return tf.cross_entropy(student.float(), target, reduction="none")


class PseudoLabelSpec(PoolSpec):
    """Plain distillation on the pool.

    Attributes:
        calibrate: soften or sharpen the teacher's probabilities by one temperature, fitted on the
            validation labels.
    """

    name: Literal["pseudo_label"] = "pseudo_label"
    calibrate: bool = False


class PseudoLabel(PoolTerm):
    """Cross-entropy on what the teacher says of the pool, as it says it."""

    Spec: ClassVar[type[TermSpec]] = PseudoLabelSpec
    spec: PseudoLabelSpec
    temperature: Tensor

    def __init__(self, spec: PseudoLabelSpec, setting: Setting) -> None:
        super().__init__(spec, setting)
        self.judged = spec.calibrate
        self.register_buffer("temperature", torch.ones(()))

    def calibrate(self, evidence: Evidence, engine: Engine) -> None:  # noqa: D102
        self.temperature.fill_(fit_temperature(evidence.teacher.log(), evidence.y))

    def values(self, pool: Record, rows: Tensor) -> Tensor:  # noqa: D102
        teacher = pool["teacher.logits"] / self.temperature
        return label_loss(pool["student.logits"], teacher, hard=self.spec.hard)


class ThresholdSpec(PoolSpec):
    """Confident pseudo-labels alone, as in FixMatch (Sohn et al., NeurIPS 2020).

    Attributes:
        threshold: smallest probability of the label; `auto` is the smallest from which on the
            teacher is right as often as `precision` on the validation samples.
        precision: of `threshold: auto`.
    """

    name: Literal["threshold"] = "threshold"
    threshold: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] = 0.95
    precision: Annotated[float, Field(gt=0, le=1)] = 0.95


class Threshold(PoolTerm):
    """Cross-entropy where the teacher is sure, divided by the share of the pool where it is."""

    Spec: ClassVar[type[TermSpec]] = ThresholdSpec
    spec: ThresholdSpec
    kept: Tensor

    def __init__(self, spec: ThresholdSpec, setting: Setting) -> None:
        super().__init__(spec, setting)
        self.register_buffer("kept", torch.ones(len(self.rows)))

    def calibrate(self, evidence: Evidence, engine: Engine) -> None:  # noqa: D102
        sure = evidence.pool.max(1).values >= self._threshold(evidence)
        share = sure.double().mean().clamp(min=1 / len(sure))
        self._warn(sure, evidence.pool.argmax(1))
        self.kept.copy_(sure / share)

    def _threshold(self, evidence: Evidence) -> float:
        if self.spec.threshold != "auto":
            return self.spec.threshold
        sure, order = evidence.teacher.max(1).values.sort(descending=True)
        precise = evidence.right[order].double().cumsum(0) / torch.arange(1, len(order) + 1)
        enough = (precise >= self.spec.precision).nonzero().flatten()
        return sure[enough[-1]].item() if len(enough) else 1.0

    def _warn(self, sure: Tensor, guess: Tensor) -> None:
        classes = self.setting.classes
        kept = torch.bincount(guess[sure], minlength=classes) / torch.bincount(
            guess, minlength=classes
        )
        if lost := (kept < _GONE).nonzero().flatten().tolist():
            warnings.warn(
                f"threshold: fewer than {_GONE:.0%} of the samples that the teacher calls "
                f"class(es) {', '.join(map(str, lost))} pass; lower method.threshold",
                stacklevel=2,
            )

    def values(self, pool: Record, rows: Tensor) -> Tensor:  # noqa: D102
        loss = label_loss(pool["student.logits"], pool["teacher.logits"], hard=self.spec.hard)
        return self.kept[rows] * loss


class ForwardSpec(PoolSpec):
    """Forward correction (Patrini et al., CVPR 2017), its matrix from the validation samples.

    Attributes:
        smoothing: added to every count of a confusion, 1 more to those on the diagonal.
    """

    name: Literal["forward"] = "forward"
    smoothing: Annotated[float, Field(gt=0)] = 0.02


class Forward(PoolTerm):
    """Cross-entropy behind the teacher's confusion matrix."""

    Spec: ClassVar[type[TermSpec]] = ForwardSpec
    spec: ForwardSpec
    confusion: Tensor

    def __init__(self, spec: ForwardSpec, setting: Setting) -> None:
        super().__init__(spec, setting)
        self.register_buffer("confusion", torch.eye(setting.classes))

    def calibrate(self, evidence: Evidence, engine: Engine) -> None:  # noqa: D102
        if evidence.flawless:
            return
        classes = self.setting.classes
        pairs = evidence.y * classes + evidence.teacher.argmax(1)
        counts = torch.bincount(pairs, minlength=classes**2).reshape(classes, classes)
        counts = counts + torch.eye(classes) + self.spec.smoothing
        self.confusion.copy_(counts / counts.sum(1, keepdim=True))

    def values(self, pool: Record, rows: Tensor) -> Tensor:  # noqa: D102
        probs = pool["teacher.logits"].float().softmax(1)
        return forward_loss(
            pool["student.logits"], probs, self.confusion, hard=self.spec.hard, reduction="none"
        )


class TaylorSpec(PoolSpec):
    """Taylor cross-entropy (Feng et al., IJCAI 2020); its labels are hard.

    Attributes:
        order: terms of the series.
    """

    name: Literal["taylor"] = "taylor"
    hard: Literal[True] = True
    order: Annotated[int, Field(ge=1)] = 2


class Taylor(PoolTerm):
    """A bounded loss on pseudo-labels that needs no validation samples."""

    Spec: ClassVar[type[TermSpec]] = TaylorSpec
    judged = False
    spec: TaylorSpec

    def values(self, pool: Record, rows: Tensor) -> Tensor:  # noqa: D102
        target = pool["teacher.logits"].argmax(1)
        return taylor_loss(pool["student.logits"], target, order=self.spec.order, reduction="none")
