"""A temperature that learns against the student: curriculum temperature (CTKD)."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor

from limbeck.errors import InputError
from limbeck.functional._common import Reduction, check_nonnegative, check_positive, full_precision
from limbeck.functional.logits import kd_loss


def ctkd_temperature(
    theta: Tensor, *, strength: float = -1.0, start: float = 1.0, span: float = 20.0
) -> Tensor:
    """T = start + span · sigmoid(θ), with θ's gradient multiplied by `strength`.

    Curriculum Temperature for Knowledge Distillation (AAAI 2023), the global version.
    zhengli97/CTKD@7d52522:models/temp_global.py; θ starts at 1 there.

    Args:
        theta: any shape, usually [1].
        strength: −1 turns the gradient round, so that T makes the loss larger; 0 freezes θ.
        start: the lowest temperature, above 0.
        span: the highest is start + span.
    """
    check_positive(start=start)
    check_nonnegative(span=span)
    constant = theta.detach()
    reversed_ = constant + strength * (theta - constant)
    return start + span * reversed_.sigmoid()


def ctkd_strength(
    epoch: int,
    *,
    kind: Literal["cosine", "linear"] = "cosine",
    epochs: float = 10,
    highest: float = 0.0,
    lowest: float = -1.0,
) -> float:
    """The `strength` of an epoch: from `highest` down to `lowest` over `epochs`, then constant.

    As published, `linear` starts at 0 whatever `highest` is and stops one step before its end:
    −i (highest − lowest) / epochs for i up to epochs − 1. zhengli97/CTKD@7d52522:train_student.py.
    """
    check_positive(epochs=epochs)
    step = min(max(epoch, 0), epochs)
    if kind == "cosine":
        return lowest + (highest - lowest) * (1 + math.cos(math.pi * step / epochs)) / 2
    if kind == "linear":
        return -min(step, epochs - 1) * (highest - lowest) / epochs
    raise InputError(f"kind is {kind!r}: it must be 'cosine' or 'linear'")


@full_precision
def ctkd_loss(
    student: Tensor,
    teacher: Tensor,
    theta: Tensor,
    *,
    strength: float = -1.0,
    start: float = 1.0,
    span: float = 20.0,
    standardize: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    """`kd_loss` at the learned temperature of `ctkd_temperature`; T² is differentiated too.

    Computed in float64: the gradient of T is a small difference of large terms.

    Args:
        student: logits [B, C, ...].
        teacher: logits of the same shape.
        theta: the trainable parameter of the temperature, [1].
        strength: what θ's gradient is multiplied by, from `ctkd_strength`.
        start: the lowest temperature.
        span: the highest is start + span.
        standardize: standardize both logits first (see `standardize`).
        reduction: over samples.
    """
    temperature = ctkd_temperature(theta.double(), strength=strength, start=start, span=span)
    values = kd_loss(
        student.double(),
        teacher.double(),
        temperature=temperature,
        standardize=standardize,
        reduction=reduction,
    )
    return values.to(student.dtype)
