"""Losses on what a projector or a connector makes of the student's features."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, smooth_l1_loss

from limbeck.functional._common import Reduction, check_nonnegative, check_positive, reduce
from limbeck.functional.features import mean_squares
from limbeck.functional.maps import as_maps, pair, per_sample


def simkd_loss(student: Tensor, teacher: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Squared difference before the reused teacher classifier (SimKD: Chen et al., CVPR 2022).

    Nothing else trains the student: it predicts with the teacher's classifier on its projected
    features.

    Args:
        student: output of `limbeck.nn.heads.ReuseProjector`, maps of the teacher's shape.
        teacher: the maps before the teacher's pooling.
        reduction: "mean", "sum" or "none" over the batch.

    Returns:
        The mean over elements: a scalar, or (B,) with ``reduction="none"``.

    Raises:
        InputError: shapes that differ, or an empty batch.

    Reference code: DefangChen/SimKD@2b389c3.
    """
    return reduce(mean_squares("simkd_loss", student, teacher), reduction)


def srrl_loss(
    student: Tensor,
    teacher: Tensor,
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    feature_weight: float = 1.0,
    logit_weight: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Pooled features and the teacher classifier's word on them (SRRL: Yang et al., ICLR 2021).

    Args:
        student: maps, tokens or vectors out of a connector with the teacher's channels.
        teacher: maps, tokens or vectors; positions are averaged before the comparison.
        student_logits: the teacher's frozen classifier on the student's pooled features, (B, K).
        teacher_logits: the teacher's logits, (B, K).
        feature_weight: factor on the mean squared difference of the pooled features.
        logit_weight: factor on the mean squared difference of the logits.
        reduction: "mean", "sum" or "none" over the batch.

    Returns:
        A scalar, or (B,) with ``reduction="none"``.

    Raises:
        InputError: shapes that differ, or an empty batch.

    Reference code: jingyang2017/KD_SRRL@d2e802f.
    """
    student, teacher = pair("srrl_loss", student, teacher, same="channels")
    pooled = as_maps(student).mean(2), as_maps(teacher).mean(2)
    features = mean_squares("srrl_loss", *pooled)
    logits = mean_squares("srrl_loss", student_logits, teacher_logits)
    return reduce(feature_weight * features + logit_weight * logits, reduction)


def vkd_loss(student: Tensor, teacher: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Smooth L1 to the normalized teacher (VkD: Miles, Elezi and Deng, CVPR 2024).

    The student comes through an orthogonal projection, which keeps its distances; the teacher's
    channels are standardized in each sample and position.

    Args:
        student: output of `limbeck.nn.heads.OrthogonalProjector`; pooled vectors in the paper.
        teacher: features of the same shape.
        reduction: "mean", "sum" or "none" over the batch.

    Returns:
        The mean over elements: a scalar, or (B,) with ``reduction="none"``.

    Raises:
        InputError: shapes that differ, or an empty batch.

    Reference code: roymiles/VkD@0c9cc5e (engine.py).
    """
    student, teacher = (as_maps(x).transpose(1, 2) for x in pair("vkd_loss", student, teacher))
    target = layer_norm(teacher, teacher.shape[-1:])
    return reduce(per_sample(smooth_l1_loss(student, target, reduction="none")), reduction)


def srd_loss(
    student: Tensor, teacher: Tensor, *, exponent: float = 4.0, eps: float = 1e-5
) -> Tensor:
    """Logarithm of a summed power of differences (SRD: Miles and Mikolajczyk, AAAI 2024).

    log(sum |n(s) - n(t)|^exponent + eps), n standardizing each channel over the batch. The
    official training doubles it.

    Args:
        student: linearly projected vectors (B, C), pooled over positions before.
        teacher: vectors of the same shape.
        exponent: the power; larger ones look at the worst channels.
        eps: bounds the logarithm at equality.

    Returns:
        A scalar: the statistics couple the samples. It is not zero but log(eps) at equality.

    Raises:
        InputError: shapes that differ, or an empty batch.

    Reference code: roymiles/Simple-Recipe-Distillation@31e8477, which adds no eps.
    """
    check_positive(exponent=exponent)
    check_nonnegative(eps=eps)
    student, teacher = pair("srd_loss", student, teacher, ranks=(2,))
    difference = _batch_normalized(student) - _batch_normalized(teacher)
    return torch.log(difference.abs().pow(exponent).sum() + eps)


def _batch_normalized(vectors: Tensor) -> Tensor:
    centered = vectors - vectors.mean(0)
    return centered * (centered.square().mean(0) + 1e-4).rsqrt()
