"""Losses on relations: between the samples of a batch, between the channels of a sample.

The two networks may differ in everything that a relation sums out. Losses on relations between
samples give a scalar; with several ranks each sees the relations inside its own part of the batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from limbeck.errors import InputError
from limbeck.functional._common import (
    Reduction,
    check_nonnegative,
    check_positive,
    full_precision,
    reduce,
)
from limbeck.functional.maps import as_maps, pair, per_sample, unit


def _rows(loss: str, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    student, teacher = pair(loss, student, teacher, same="batch")
    return student.flatten(1), teacher.flatten(1)


@full_precision
def sp_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Difference of the similarities in a batch (SP: Tung and Mori, ICCV 2019).

    (1 / B^2) ||G_s - G_t||_F^2 with G = F F^T of the flattened features, rows of norm one.

    Args:
        student: features of any shape (B, ...).
        teacher: features of any shape (B, ...).

    Returns:
        A scalar.

    Raises:
        InputError: different or empty batches.

    Reference code: HobbitLong/RepDistiller@b84f547.
    """
    grams = [unit(rows @ rows.T) for rows in _rows("sp_loss", student, teacher)]
    return (grams[0] - grams[1]).square().mean()


@full_precision
def cc_loss(student: Tensor, teacher: Tensor, *, gamma: float = 0.4, order: int = 2) -> Tensor:
    """Difference of the kernel matrices of a batch (CC: Peng et al., ICCV 2019).

    The Gaussian kernel exp(-gamma ||x - y||^2) of features of norm one, as its Taylor series.

    Args:
        student: features of any shape (B, ...).
        teacher: features of any shape (B, ...).
        gamma: width of the kernel.
        order: last power of the series.

    Returns:
        A scalar, the mean over all B^2 pairs.

    Raises:
        InputError: different or empty batches.

    Reference code: AberHu/Knowledge-Distillation-Zoo@65470c8.
    """
    check_positive(gamma=gamma)
    check_nonnegative(order=order)
    kernels = [_taylor(unit(rows), gamma, order) for rows in _rows("cc_loss", student, teacher)]
    return (kernels[0] - kernels[1]).square().mean()


def _taylor(rows: Tensor, gamma: float, order: int) -> Tensor:
    cosine = rows @ rows.T
    terms = [(2 * gamma) ** p / math.factorial(p) * cosine.pow(p) for p in range(order + 1)]
    return math.exp(-2 * gamma) * torch.stack(terms).sum(0)


def rkd_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    distance_weight: float = 25.0,
    angle_weight: float = 50.0,
    normalize: bool = False,
) -> Tensor:
    """Distances and angles between samples (RKD: Park et al., CVPR 2019).

    The paper weighs them 1 to 2.

    Args:
        student: features of any shape (B, ...).
        teacher: features of any shape (B, ...).
        distance_weight: factor on `rkd_distance_loss`; 0 skips it.
        angle_weight: factor on `rkd_angle_loss`; 0 skips it.
        normalize: divide each sample's features by their norm first.

    Returns:
        A scalar.

    Raises:
        InputError: different or empty batches, or both weights 0.

    Reference code: lenscloth/RKD@0a6c3c0; the weights of HobbitLong/RepDistiller@b84f547.
    """
    check_nonnegative(distance_weight=distance_weight, angle_weight=angle_weight)
    if distance_weight == 0 and angle_weight == 0:
        raise InputError("rkd_loss needs a distance_weight or an angle_weight other than 0")
    parts = []
    if distance_weight:
        parts.append(distance_weight * rkd_distance_loss(student, teacher, normalize=normalize))
    if angle_weight:
        parts.append(angle_weight * rkd_angle_loss(student, teacher, normalize=normalize))
    return torch.stack(parts).sum()


@full_precision
def rkd_distance_loss(student: Tensor, teacher: Tensor, *, normalize: bool = False) -> Tensor:
    """Smooth L1 of pairwise distances over their mean (RKD-D: Park et al., CVPR 2019).

    Args:
        student: features of any shape (B, ...).
        teacher: features of any shape (B, ...).
        normalize: divide each sample's features by their norm first.

    Returns:
        A scalar, the mean over all B^2 pairs, a sample with itself included.

    Raises:
        InputError: different or empty batches.
    """
    rows = _rows("rkd_distance_loss", student, teacher)
    s, t = (_relative_distances(unit(x) if normalize else x) for x in rows)
    return smooth_l1_loss(s, t)


def _relative_distances(rows: Tensor, eps: float = 1e-12) -> Tensor:
    count = rows.shape[0]
    rows = rows - rows.mean(0)  # distances stay, and the products below cancel less
    squares = rows.square().sum(1)
    squared = squares[:, None] + squares[None, :] - 2 * rows @ rows.T
    itself = torch.eye(count, dtype=torch.bool, device=rows.device)
    distances = squared.clamp_min(eps).sqrt().masked_fill(itself, 0.0)
    mean = distances.sum() / max(count * (count - 1), 1)
    return distances / mean.clamp_min(eps)


@full_precision
def rkd_angle_loss(student: Tensor, teacher: Tensor, *, normalize: bool = False) -> Tensor:
    """Smooth L1 of the cosines at each sample (RKD-A: Park et al., CVPR 2019).

    Args:
        student: features of any shape (B, ...).
        teacher: features of any shape (B, ...).
        normalize: divide each sample's features by their norm first.

    Returns:
        A scalar, the mean over all B^3 triplets; those with two equal samples count as zero.

    Raises:
        InputError: different or empty batches.
    """
    rows = _rows("rkd_angle_loss", student, teacher)
    s, t = (_angles(unit(x) if normalize else x) for x in rows)
    return smooth_l1_loss(s, t)


def _angles(rows: Tensor) -> Tensor:
    edges = unit(rows[None, :, :] - rows[:, None, :])
    return edges @ edges.transpose(1, 2)


@full_precision
def pkt_loss(student: Tensor, teacher: Tensor, *, eps: float = 1e-7) -> Tensor:
    """Divergence of neighbor probabilities (PKT: Passalis and Tefas, ECCV 2018).

    The probabilities are the cosines, scaled to [0, 1], divided by the sum of their row. The paper
    sums over i != j; the authors' code, followed here, averages over all B^2 entries.

    Args:
        student: features of any shape (B, ...).
        teacher: features of any shape (B, ...).
        eps: added to norms and to both probabilities in the logarithm.

    Returns:
        A scalar.

    Raises:
        InputError: different or empty batches.

    Reference code: passalis/probabilistic_kt@a58fd1b (nn/pkt.py).
    """
    check_nonnegative(eps=eps)
    p_s, p_t = (_neighbors(rows, eps) for rows in _rows("pkt_loss", student, teacher))
    return (p_t * ((p_t + eps) / (p_s + eps)).log()).mean()


def _neighbors(rows: Tensor, eps: float) -> Tensor:
    rows = rows / (torch.linalg.vector_norm(rows, dim=1, keepdim=True) + eps)
    similarity = (rows @ rows.T + 1) / 2
    return similarity / similarity.sum(1, keepdim=True)


@full_precision
def nst_loss(student: Tensor, teacher: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Discrepancy of where the channels look (NST: Huang and Wang, 2017).

    Squared maximum mean discrepancy with the kernel (x . y)^2 between the channels' maps, each of
    norm one. Maps of different sizes are average-pooled to the smaller grid; channels may differ.

    Args:
        student: maps, or tokens of the teacher's number.
        teacher: maps or tokens.
        reduction: "mean", "sum" or "none" over the batch.

    Returns:
        A scalar, or (B,) with ``reduction="none"``.

    Raises:
        InputError: shapes that no pooling brings together, or an empty batch.

    Reference code: HobbitLong/RepDistiller@b84f547.
    """
    student, teacher = pair("nst_loss", student, teacher, same="grid", ranks=(3, 4), pool=True)
    s, t = unit(as_maps(student)), unit(as_maps(teacher))
    return reduce(_kernel(t, t) + _kernel(s, s) - 2 * _kernel(s, t), reduction)


def _kernel(left: Tensor, right: Tensor) -> Tensor:
    return per_sample((left @ right.transpose(1, 2)).square())


@full_precision
def ickd_loss(student: Tensor, teacher: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Difference of the correlations between channels (ICKD-C: Liu et al., ICCV 2021).

    (1 / C) ||n(S S^T) - n(T T^T)||_F^2 in each sample, n giving rows norm one, as in the authors'
    code for CIFAR; the paper divides by C^2 and does not normalize.

    Args:
        student: maps or tokens out of a connector with the teacher's channels.
        teacher: maps or tokens; the number of positions may differ.
        reduction: "mean", "sum" or "none" over the batch.

    Returns:
        A scalar, or (B,) with ``reduction="none"``.

    Raises:
        InputError: numbers of channels that differ, or an empty batch.

    Reference code: ADLab-AutoDrive/ICKD@403b8d3 (Cifar100).
    """
    student, teacher = pair("ickd_loss", student, teacher, same="channels", ranks=(3, 4))
    maps = as_maps(student), as_maps(teacher)
    grams = [unit(x @ x.transpose(1, 2)) for x in maps]
    values = (grams[0] - grams[1]).square().sum((1, 2)) / maps[0].shape[1]
    return reduce(values, reduction)
