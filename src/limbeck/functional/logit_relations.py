"""Losses on how logits relate: classes within a batch, samples within a batch.

They compare samples with one another, so they return a scalar and depend on the batch. Logits are
[B, C] or [B, C, ...], where every position counts as a sample.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from limbeck.errors import InputError
from limbeck.functional._common import check_nonnegative, full_precision, soften
from limbeck.functional.logits import kd_loss


def _rows(values: Tensor) -> Tensor:
    """[B, C, ...] as one row of C values a position."""
    return values if values.dim() == 2 else values.movedim(1, -1).reshape(-1, values.shape[1])


def _correlation(x: Tensor, y: Tensor, dim: int) -> Tensor:
    """Pearson's correlation along `dim` of values with mean 0; 0 where one side is constant."""
    norms: Tensor = torch.linalg.vector_norm(x, dim=dim) * torch.linalg.vector_norm(y, dim=dim)
    products: Tensor = torch.linalg.vecdot(x, y, dim=dim)
    return products / (norms + 1e-8)


@full_precision
def dist_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float = 1.0,
    beta: float = 1.0,
    gamma: float = 1.0,
    standardize: bool = False,
) -> Tensor:
    """T² (β (1 − ρ over classes, per sample) + γ (1 − ρ over samples, per class)).

    ρ is Pearson's correlation of the probabilities, averaged. Knowledge Distillation from A
    Stronger Teacher (NeurIPS 2022); T² is in every published code that has a T.
    hunto/image_classification_sota@6f7a70a:lib/models/losses/dist_kd.py.

    Args:
        student: logits [B, C, ...]; positions of dense predictions count as samples.
        teacher: logits of the same shape.
        temperature: T > 0.
        beta: weight of the relation between classes.
        gamma: weight of the relation between samples.
        standardize: standardize both logits first (see `standardize`).

    Returns:
        A scalar: samples are compared with one another.
    """
    student, teacher = soften(student, teacher, temperature, standardize)
    check_nonnegative(beta=beta, gamma=gamma)
    q, p = _rows(student.softmax(1)), _rows(teacher.softmax(1))
    uniform = 1 / q.shape[1]  # the mean of each row
    inter = 1 - _correlation(q - uniform, p - uniform, 1).mean()
    intra = 1 - _correlation(q - q.mean(0), p - p.mean(0), 0).mean()
    return temperature**2 * beta * inter + temperature**2 * gamma * intra


def _gram_loss(
    student: Tensor, teacher: Tensor, temperature: float, standardized: bool, over: int
) -> Tensor:
    student, teacher = soften(student, teacher, temperature, standardized)
    q, p = _rows(student.softmax(1)), _rows(teacher.softmax(1))
    if over == 0:
        q, p = q.T, p.T
    return (p @ p.T - q @ q.T).square().sum() / len(q)


@full_precision
def mlkd_batch_loss(
    student: Tensor, teacher: Tensor, *, temperature: float = 4.0, standardize: bool = False
) -> Tensor:
    """‖P_t P_tᵀ − P_s P_sᵀ‖² / B, P = softmax(z/T) [B, C]: Multi-Level Logit KD (CVPR 2023).

    Which samples resemble one another. Jin-Ying/Multi-Level-Logit-Distillation@5ee473f: bc_loss.
    """
    return _gram_loss(student, teacher, temperature, standardize, over=1)


@full_precision
def mlkd_class_loss(
    student: Tensor, teacher: Tensor, *, temperature: float = 4.0, standardize: bool = False
) -> Tensor:
    """‖P_tᵀ P_t − P_sᵀ P_s‖² / C, P = softmax(z/T) [B, C]: Multi-Level Logit KD (CVPR 2023).

    Which classes go together. Jin-Ying/Multi-Level-Logit-Distillation@5ee473f: cc_loss.
    """
    return _gram_loss(student, teacher, temperature, standardize, over=0)


def mlkd_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    temperatures: Sequence[float] = (2.0, 3.0, 4.0, 5.0, 6.0),
    instance: float = 1.0,
    batch: float = 1.0,
    classes: float = 1.0,
    standardize: bool = False,
) -> Tensor:
    """Σ over T of instance · `kd_loss` + batch · `mlkd_batch_loss` + classes · `mlkd_class_loss`.

    Multi-Level Logit Distillation (CVPR 2023). The released code multiplies terms that are already
    averaged by the share of confident samples; the paper's plain sum is what stands here.
    """
    check_nonnegative(instance=instance, batch=batch, classes=classes)
    if not temperatures:
        raise InputError("temperatures is empty: at least one temperature is needed")
    levels = [(instance, kd_loss), (batch, mlkd_batch_loss), (classes, mlkd_class_loss)]
    terms = [
        weight * level(student, teacher, temperature=temperature, standardize=standardize)
        for temperature in temperatures
        for weight, level in levels
    ]
    return torch.stack(terms).sum()
