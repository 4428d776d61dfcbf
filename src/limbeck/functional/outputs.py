"""Losses on outputs that are no single class: several labels at once, or real numbers."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as tf
from torch import Tensor

from limbeck.errors import InputError
from limbeck.functional._common import (
    Reduction,
    binary_kl,
    check_nonnegative,
    check_pair,
    check_positive,
    full_precision,
    reduce,
)


@full_precision
def bce_kd_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float = 1.0,
    cross_entropy: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    """T² Σ over labels of KL(σ(t/T) ‖ σ(s/T)) of coins: for samples that bear several labels.

    The one-versus-all form of Multi-Label Knowledge Distillation (ICCV 2023).

    Args:
        student: one logit a label [B, L, ...].
        teacher: logits of the same shape.
        temperature: T > 0.
        cross_entropy: leave the teacher's entropy in the value; the gradient is the same.
        reduction: over samples; labels are summed.
    """
    check_pair(student, teacher)
    check_positive(temperature=temperature)
    q, p = student / temperature, teacher.detach() / temperature
    if cross_entropy:
        values = tf.binary_cross_entropy_with_logits(q, p.sigmoid(), reduction="none")
    else:
        values = binary_kl(p, q)
    return reduce(temperature**2 * values.flatten(1).sum(1), reduction)


DISTANCES = {"mse": tf.mse_loss, "l1": tf.l1_loss, "smooth_l1": tf.smooth_l1_loss}


@full_precision
def regression_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    distance: Literal["mse", "l1", "smooth_l1"] = "mse",
    reduction: Reduction = "mean",
) -> Tensor:
    """Distance of the student's numbers from the teacher's, summed over the outputs of a sample.

    Args:
        student: predictions [B] or [B, ...].
        teacher: predictions of the same shape.
        distance: squared, absolute, or squared near 0 and absolute beyond 1.
        reduction: over samples.
    """
    check_pair(student, teacher, "predictions", dimensions=1)
    if distance not in DISTANCES:
        raise InputError(f"distance is {distance!r}: it must be one of {', '.join(DISTANCES)}")
    values = DISTANCES[distance](student, teacher.detach(), reduction="none")
    return reduce(_per_sample(values), reduction)


@full_precision
def bounded_regression_loss(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    *,
    margin: float = 0.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """‖s − y‖² where ‖s − y‖² + m > ‖t − y‖², else 0: the teacher as an upper bound.

    Learning Efficient Object Detection Models with Knowledge Distillation (NeurIPS 2017).

    Args:
        student: predictions [B] or [B, ...].
        teacher: predictions of the same shape.
        target: the true values, same shape.
        margin: m ≥ 0, by how much the student has to be better than the teacher.
        reduction: over samples.
    """
    check_pair(student, teacher, "predictions", dimensions=1)
    check_pair(student, target, "predictions", dimensions=1)
    check_nonnegative(margin=margin)
    ours = _per_sample((student - target).square())
    theirs = _per_sample((teacher.detach() - target).square())
    return reduce(torch.where(ours + margin > theirs, ours, 0.0), reduction)


def _per_sample(values: Tensor) -> Tensor:
    return values.flatten(1).sum(1) if values.dim() > 1 else values
