"""Losses that compare a student's features with a teacher's, element by element.

The student comes first and already has the teacher's shape: an adapter or one of the heads of
`limbeck.nn` maps it there. The teacher is a constant. ``reduction`` acts over the batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss, softplus

from limbeck.errors import InputError
from limbeck.functional._common import Reduction, check_nonnegative, reduce
from limbeck.functional.maps import (
    Per,
    as_maps,
    check_choice,
    pair,
    per_channel,
    per_sample,
    unit,
)


def fitnet_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    per: Per = "element",
    normalize: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    """Squared difference of two features (FitNets: Romero et al., ICLR 2015, equation 3).

    The paper sums half the squares; public code takes the mean over elements, as the default here.

    Args:
        student: features of any shape (B, ...), the output of the regressor.
        teacher: features of the same shape.
        per: "element" for the mean over a sample's elements, "sample" for their sum.
        normalize: divide each sample's features by their Euclidean norm first.
        reduction: "mean", "sum" or "none" over the batch.

    Returns:
        A scalar, or (B,) with ``reduction="none"``.

    Raises:
        InputError: shapes that differ, or an empty batch.

    Reference code: HobbitLong/RepDistiller@b84f547; open-mmlab/mmrazor@90c7af1 (``per="sample"``).
    """
    student, teacher = pair("fitnet_loss", student, teacher)
    if normalize:
        student, teacher = unit(student.flatten(1)), unit(teacher.flatten(1))
    return reduce(per_sample((student - teacher).square(), per), reduction)


def mean_squares(loss: str, student: Tensor, teacher: Tensor) -> Tensor:
    """The mean squared difference of each sample's features, (B,), checked as those of `loss`."""
    student, teacher = pair(loss, student, teacher)
    return per_sample((student - teacher).square())


def factor_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    p: int = 1,
    per: Per = "element",
    reduction: Reduction = "mean",
    eps: float = 1e-6,
) -> Tensor:
    """Distance of two factors' directions (factor transfer: Kim et al., NeurIPS 2018).

    Each sample's factor z counts as z / ||z||, so its size is free. A sample whose teacher factor
    is zero has no direction to copy: loss and gradient are zero.

    Args:
        student: output of the translator, any shape (B, ...), d numbers a sample.
        teacher: output of the paraphraser, the same shape.
        p: the norm of the difference, 1 or 2.
        per: "element" divides a sample's p-norm by d, as the official code does; "sample" does not.
        reduction: "mean", "sum" or "none" over the batch.
        eps: norms count from ``eps * sqrt(d)`` up, which bounds the gradient of small factors.

    Returns:
        A scalar, or (B,) with ``reduction="none"``.

    Raises:
        InputError: shapes that differ, an empty batch, or another `p`.

    Reference code: Jangho-Kim/Factor-Transfer-pytorch@19cce26.
    """
    if p not in (1, 2):
        raise InputError(f"p of factor_loss is 1 or 2, got {p}")
    student, teacher = (z.flatten(1) for z in pair("factor_loss", student, teacher))
    check_choice("per", per, "element", "sample")
    size = student.shape[1]
    least = eps * size**0.5
    norm = torch.linalg.vector_norm(student, dim=1, keepdim=True).clamp_min(least)
    target = unit(teacher, eps=least)
    distance = torch.linalg.vector_norm(student / norm - target, ord=p, dim=1)
    values = torch.where(target.any(1), distance, torch.zeros_like(distance))
    return reduce(values / size if per == "element" else values, reduction)


def vid_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    log_scale: Tensor,
    eps: float = 1e-5,
    reduction: Reduction = "mean",
) -> Tensor:
    """Gaussian log-likelihood of the teacher's features (VID: Ahn et al., CVPR 2019).

    Mean over elements of ((mu - t)^2 / v + log v) / 2 with v = log(1 + exp(log_scale)) + eps for
    each channel; the constant log(2 pi) / 2 is left out.

    Args:
        student: the mean mu that the head predicts from the student, maps, tokens or vectors.
        teacher: features of the same shape.
        log_scale: trained parameter, one a channel, shape (C,).
        eps: the least variance.
        reduction: "mean", "sum" or "none" over the batch.

    Returns:
        A scalar, or (B,) with ``reduction="none"``.

    Raises:
        InputError: shapes that differ, or an empty batch.

    Reference code: HobbitLong/RepDistiller@b84f547 (distiller_zoo/VID.py).
    """
    student, teacher = pair("vid_loss", student, teacher)
    variance = per_channel(softplus(log_scale.to(student.dtype)) + eps, student)
    values = 0.5 * ((student - teacher).square() / variance + variance.log())
    return reduce(per_sample(values), reduction)


def mgd_loss(
    student: Tensor, teacher: Tensor, *, alpha: float = 2e-5, reduction: Reduction = "mean"
) -> Tensor:
    """Squared error of features generated from masked ones (MGD: Yang et al., ECCV 2022).

    Args:
        student: output of `limbeck.nn.heads.MaskedGenerator`, maps of the teacher's shape.
        teacher: maps (B, C, H, W).
        alpha: factor on the sum over a sample's elements: 2e-5 for dense prediction with a mask
            over positions, 7e-5 for classification with a mask over channels.
        reduction: "mean", "sum" or "none" over the batch.

    Returns:
        A scalar, or (B,) with ``reduction="none"``.

    Raises:
        InputError: shapes that differ, or an empty batch.

    Reference code: yzd-v/MGD@2c9da0b.
    """
    student, teacher = pair("mgd_loss", student, teacher)
    return reduce(alpha * per_sample((student - teacher).square(), "sample"), reduction)


def pkd_loss(student: Tensor, teacher: Tensor, *, eps: float = 1e-6) -> Tensor:
    """One minus the Pearson correlation of each channel (PKD: Cao et al., NeurIPS 2022).

    Channels are standardized over the batch and all positions, then half the mean squared
    difference is taken.

    Args:
        student: maps, tokens or vectors.
        teacher: features of the same shape.
        eps: added to each standard deviation.

    Returns:
        A scalar: the statistics couple the samples.

    Raises:
        InputError: shapes that differ, or an empty batch.

    Reference code: open-mmlab/mmrazor@90c7af1 (losses/pkd_loss.py).
    """
    check_nonnegative(eps=eps)
    student, teacher = pair("pkd_loss", student, teacher)
    return (_standardized(student, eps) - _standardized(teacher, eps)).square().mean() / 2


def _standardized(features: Tensor, eps: float) -> Tensor:
    rows = as_maps(features).transpose(0, 1).flatten(1)
    rows = rows - rows.mean(1, keepdim=True)
    # The unbiased deviation; its divisor is kept positive for a channel with a single value.
    norm: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / (norm / math.sqrt(max(rows.shape[1] - 1, 1)) + eps)


def cosine_smooth_l1_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    cosine_weight: float = 0.9,
    smooth_weight: float = 0.1,
    beta: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cosine distance and smooth L1 of each token (AM-RADIO: Ranzinger et al., CVPR 2024).

    Args:
        student: maps, tokens or vectors.
        teacher: features of the same shape.
        cosine_weight: factor on one minus the cosine over channels, averaged over positions.
        smooth_weight: factor on the smooth L1 distance, averaged over elements.
        beta: difference at which smooth L1 turns from square to linear.
        reduction: "mean", "sum" or "none" over the batch.

    Returns:
        A scalar, or (B,) with ``reduction="none"``.

    Raises:
        InputError: shapes that differ, or an empty batch.
    """
    check_nonnegative(cosine_weight=cosine_weight, smooth_weight=smooth_weight, beta=beta)
    student, teacher = pair("cosine_smooth_l1_loss", student, teacher)
    maps = as_maps(student), as_maps(teacher)
    cosine = (unit(maps[0], dim=1) * unit(maps[1], dim=1)).sum(1)
    smooth = smooth_l1_loss(student, teacher, beta=beta, reduction="none")
    values = cosine_weight * per_sample(1 - cosine) + smooth_weight * per_sample(smooth)
    return reduce(values, reduction)
