"""Losses without a bigger teacher: a virtual one, the student's own past, or its peers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from limbeck.errors import InputError
from limbeck.functional._common import (
    Reduction,
    check_fraction,
    check_labels,
    check_positive,
    check_tensor,
    full_precision,
    kl,
    one_hot,
    reduce,
    soften,
)
from limbeck.functional.logits import kd_loss


def tfkd_self_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float = 20.0,
    standardize: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    """`kd_loss` from a student of the same kind trained before: Tf-KD_self (CVPR 2020).

    Revisiting Knowledge Distillation via Label Smoothing Regularization. Its code takes the mean
    over B·C elements and mends that with a multiplier; here the mean is over samples.
    yuanli2333/Teacher-free-Knowledge-Distillation@d000ab3:my_loss_function.py.
    """
    return kd_loss(
        student, teacher, temperature=temperature, standardize=standardize, reduction=reduction
    )


@full_precision
def tfkd_reg_loss(
    student: Tensor,
    target: Tensor,
    *,
    temperature: float = 20.0,
    correct: float = 0.99,
    reduction: Reduction = "mean",
) -> Tensor:
    """KL(softmax(u/T) ‖ softmax(s)), u a virtual teacher: Tf-KD_reg (CVPR 2020).

    Revisiting Knowledge Distillation via Label Smoothing Regularization. u is `correct` at the
    target and shares the rest among the other classes. As published, the student is not softened;
    the code's mean over B·C elements is a mean over samples here.
    yuanli2333/Teacher-free-Knowledge-Distillation@d000ab3:my_loss_function.py.

    Args:
        student: logits [B, C, ...].
        target: class ids [B, ...].
        temperature: T > 0 of the virtual teacher.
        correct: the virtual teacher's probability of the target, in [0, 1].
        reduction: over samples.
    """
    check_tensor(student, "student logits")
    check_labels(student, target)
    check_positive(temperature=temperature)
    check_fraction(correct=correct)
    others = (1 - correct) / max(student.shape[1] - 1, 1)
    virtual = others + (correct - others) * one_hot(student, target)
    return reduce(kl((virtual / temperature).log_softmax(1), student.log_softmax(1), 1), reduction)


@full_precision
def pskd_loss(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    *,
    weight: float = 0.8,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross-entropy to (1 − w) · one-hot + w · softmax(past): PS-KD (ICCV 2021).

    lgcnsai/PS-KD-Pytorch@9aa0828:loss/pskd_loss.py.

    Args:
        student: logits [B, C, ...].
        teacher: the student's own logits of the epoch before, same shape.
        target: class ids [B, ...].
        weight: w in [0, 1], see `pskd_weight`.
        reduction: over samples.
    """
    student, teacher = soften(student, teacher, 1.0)
    check_labels(student, target)
    check_fraction(weight=weight)
    soft = (1 - weight) * one_hot(student, target) + weight * teacher.softmax(1)
    return reduce(-(soft * student.log_softmax(1)).sum(1), reduction)


def pskd_weight(epoch: int, epochs: int, *, final: float = 0.8) -> float:
    """Weight of the past in `pskd_loss`: `final` in the last epoch; epochs count from 0."""
    return final * (epoch + 1) / epochs


@full_precision
def dml_loss(
    student: Tensor,
    teacher: Tensor | Sequence[Tensor],
    *,
    temperature: float = 1.0,
    standardize: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    """Mean over the peers of KL(softmax(peer) ‖ softmax(s)): Deep Mutual Learning (CVPR 2018).

    Each network of a cohort adds this to its own cross-entropy; peers are constants in it.
    AberHu/Knowledge-Distillation-Zoo@65470c8:kd_losses/dml.py.

    Args:
        student: logits [B, C, ...].
        teacher: logits of one peer, or of several as a sequence.
        temperature: T > 0 of all; T² multiplies the value.
        standardize: standardize all logits first (see `standardize`).
        reduction: over samples.
    """
    peers = [teacher] if isinstance(teacher, Tensor) else list(teacher)
    if not peers:
        raise InputError("there is no peer: mutual learning needs at least one other network")
    values = [
        kd_loss(student, p, temperature=temperature, standardize=standardize, reduction="none")
        for p in peers
    ]
    return reduce(torch.stack(values).mean(0), reduction)
