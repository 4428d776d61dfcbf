"""Losses on the logits of classifiers and regressors.

Logits are [B, C] or, for dense predictions, [B, C, ...]: classes along dimension 1, and every
position counts as a sample. The teacher is a constant: no gradient flows into it. Targets are class
ids of shape [B] or [B, ...].
"""

from __future__ import annotations

import torch
import torch.nn.functional as tf
from torch import Tensor

from limbeck.functional._common import (
    Reduction,
    binary_kl,
    check_labels,
    check_nonnegative,
    check_positive,
    full_precision,
    kl,
    one_hot,
    reduce,
    soften,
)


@full_precision
def kd_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float | Tensor = 4.0,
    standardize: bool = False,
    cross_entropy: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    """T² · KL(softmax(t/T) ‖ softmax(s/T)): Distilling the Knowledge in a Neural Network (2015).

    T² keeps the size of the gradient independent of T, and `mean` is over samples only. Reference:
    HobbitLong/RepDistiller@b84f547:distiller_zoo/KD.py.

    Args:
        student: logits [B, C, ...].
        teacher: logits of the same shape.
        temperature: T > 0; a tensor is differentiated too.
        standardize: standardize both logits first (see `standardize`).
        cross_entropy: leave the teacher's entropy in the value; the gradient is the same.
        reduction: over samples.

    Returns:
        A scalar, or [B, ...] with reduction `none`.
    """
    student, teacher = soften(student, teacher, temperature, standardize)
    log_p, log_q = teacher.log_softmax(1), student.log_softmax(1)
    values = kl(log_p, log_q, 1, cross_entropy=cross_entropy)
    return reduce(temperature**2 * values, reduction)


def lskd_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float = 2.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """`kd_loss` on standardized logits: Logit Standardization in KD (CVPR 2024).

    Any logit loss takes `standardize=True`; this is the paper's own, with its base temperature.
    """
    return kd_loss(student, teacher, temperature=temperature, standardize=True, reduction=reduction)


def _without_target(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The target's log-odds, the logits of the other classes, and their logsumexp.

    The first and the last are [B, ...]. The target's own logit is the lowest finite number among
    the others: its probability there is 0, and one class alone, or logits of 1e4, give no NaN.
    """
    index = target.unsqueeze(1)
    others = logits.scatter(1, index, torch.finfo(logits.dtype).min)
    total = others.logsumexp(1)
    return logits.gather(1, index).squeeze(1) - total, others, total


@full_precision
def dkd_loss(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    *,
    temperature: float = 4.0,
    alpha: float = 1.0,
    beta: float = 8.0,
    standardize: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    """T² (α · target KL + β · non-target KL): Decoupled Knowledge Distillation (CVPR 2022).

    The first compares the target against all the rest, the second the other classes renormalized.
    megvii-research/mdistiller@a08d46f:mdistiller/distillers/DKD.py.

    Args:
        student: logits [B, C, ...].
        teacher: logits of the same shape.
        target: class ids [B, ...].
        temperature: T > 0.
        alpha: weight of the target term.
        beta: weight of the non-target term.
        standardize: standardize both logits first (see `standardize`).
        reduction: over samples.
    """
    student, teacher = soften(student, teacher, temperature, standardize)
    check_labels(student, target)
    check_nonnegative(alpha=alpha, beta=beta)
    p_odds, p_others, p_total = _without_target(teacher, target)
    q_odds, q_others, q_total = _without_target(student, target)
    mean_gap = (p_others.softmax(1) * (p_others - q_others)).sum(1)
    others = mean_gap - p_total + q_total
    scale = temperature**2
    return reduce(scale * alpha * binary_kl(p_odds, q_odds) + scale * beta * others, reduction)


@full_precision
def nkd_loss(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    *,
    temperature: float = 1.0,
    gamma: float = 1.5,
    standardize: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    """−p_t(y) log p_s(y) + γ T² · cross-entropy of the other classes, renormalized.

    From Knowledge Distillation to Self-Knowledge Distillation: normalized KD (ICCV 2023). The
    target term is at temperature 1; the value keeps the teacher's entropy.
    yzd-v/cls_KD@1e5d48f:mmcls/models/dis_losses/nkd.py.

    Args:
        student: logits [B, C, ...].
        teacher: logits of the same shape.
        target: class ids [B, ...].
        temperature: T > 0 of the non-target term.
        gamma: weight of the non-target term.
        standardize: standardize both logits first (see `standardize`).
        reduction: over samples.
    """
    student, teacher = soften(student, teacher, 1.0, standardize)
    check_labels(student, target)
    check_positive(temperature=temperature)
    check_nonnegative(gamma=gamma)
    confidence = (-tf.cross_entropy(teacher, target, reduction="none")).exp()
    right = confidence * tf.cross_entropy(student, target, reduction="none")
    _, p_others, _ = _without_target(teacher / temperature, target)
    _, q_others, q_total = _without_target(student / temperature, target)
    others = q_total - (p_others.softmax(1) * q_others).sum(1)
    return reduce(right + gamma * temperature**2 * others, reduction)


@full_precision
def wsld_loss(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    *,
    temperature: float = 2.0,
    standardize: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    """w T² · cross-entropy to the teacher, w = 1 − exp(−CE_s / CE_t) without gradient.

    Rethinking Soft Labels for Knowledge Distillation (ICLR 2021); the cross-entropies of
    the weight are at temperature 1. open-mmlab/mmrazor@90c7af1:
    mmrazor/models/losses/weighted_soft_label_distillation.py.

    Args:
        student: logits [B, C, ...].
        teacher: logits of the same shape.
        target: class ids [B, ...].
        temperature: T > 0.
        standardize: standardize both logits first (see `standardize`).
        reduction: over samples.
    """
    student, teacher = soften(student, teacher, 1.0, standardize)
    check_labels(student, target)
    soft = kd_loss(student, teacher, temperature=temperature, cross_entropy=True, reduction="none")
    ours = tf.cross_entropy(student.detach(), target, reduction="none")
    theirs = tf.cross_entropy(teacher, target, reduction="none")
    return reduce(-torch.expm1(-ours / (theirs + 1e-7)) * soft, reduction)


@full_precision
def wttm_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float = 4.0,
    weighted: bool = True,
    standardize: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    """U · KL(softmax(t/T) ‖ softmax(s)), U = Σ_c softmax(t)_c^(1/T): Transformed Teacher Matching.

    Knowledge Distillation Based on Transformed Teacher Matching (ICLR 2024), eq. (22): only the
    teacher is softened, U gives more weight to samples with a soft teacher, there is no T².

    Args:
        student: logits [B, C, ...].
        teacher: logits of the same shape.
        temperature: T > 0, 1/T is the paper's γ.
        weighted: False leaves U out (the paper's TTM).
        standardize: standardize both logits first (see `standardize`).
        reduction: over samples.
    """
    student, teacher = soften(student, teacher, 1.0, standardize)
    check_positive(temperature=temperature)
    power = teacher.log_softmax(1) / temperature
    values = kl(power.log_softmax(1), student.log_softmax(1), 1)
    return reduce(power.exp().sum(1) * values if weighted else values, reduction)


@full_precision
def ofa_loss(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    *,
    temperature: float = 1.0,
    gamma: float = 1.0,
    standardize: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    """−Σ_c ((p_t(c) + 1[c = y])^γ − 1[c = y]) log p_s(c): One-for-All (NeurIPS 2023).

    For unlike architectures, on the logits of exit branches; γ > 1 enhances the target. At γ = 1 it
    is the cross-entropy to the teacher. Hao840/OFAKD: distillers/ofa.py.

    Args:
        student: logits of an exit branch [B, C, ...].
        teacher: logits of the same shape.
        target: class ids [B, ...].
        temperature: T > 0 of both.
        gamma: the exponent, above 0.
        standardize: standardize both logits first (see `standardize`).
        reduction: over samples.
    """
    student, teacher = soften(student, teacher, temperature, standardize)
    check_labels(student, target)
    check_positive(gamma=gamma)
    truth = one_hot(teacher, target)
    weights = (teacher.softmax(1) + truth) ** gamma - truth
    return reduce(-(weights * student.log_softmax(1)).sum(1), reduction)


@full_precision
def deit_hard_loss(student: Tensor, teacher: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Cross-entropy to the teacher's decision: DeiT's distillation token (ICML 2021), eq. (3).

    Args:
        student: logits of the distillation token [B, C, ...].
        teacher: logits of the same shape.
        reduction: over samples.
    """
    student, teacher = soften(student, teacher, 1.0)
    return reduce(tf.cross_entropy(student, teacher.argmax(1), reduction="none"), reduction)


def deit_soft_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float = 3.0,
    standardize: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    """`kd_loss` on the distillation token with the paper's T = 3: DeiT (ICML 2021), eq. (2).

    The published code divides by B·C elements; here the mean is over samples.
    """
    return kd_loss(
        student, teacher, temperature=temperature, standardize=standardize, reduction=reduction
    )


@full_precision
def logit_mse_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    standardize: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    """‖s − t‖² of the logits: Comparing KL and MSE in Knowledge Distillation (IJCAI 2021).

    The sum is over classes, the mean over samples.
    """
    student, teacher = soften(student, teacher, 1.0, standardize)
    return reduce((student - teacher).square().sum(1), reduction)
