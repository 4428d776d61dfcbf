"""Distillation from a teacher's top classes, with all others as one class."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from limbeck.errors import InputError
from limbeck.functional._common import (
    Reduction,
    check_pair,
    check_positive,
    full_precision,
    kl,
    reduce,
)


@full_precision
def topk_kd_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    top_k: int = 10,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """T² · KL between the teacher's top K classes and one class for all others.

    Both sides are collapsed to K + 1 probabilities at temperature 1, which are then softened. So it
    is exact where only the top K probabilities and the mass of the rest are known, and it says
    nothing of how the rest is shared out. The collapse of sparse stored labels in
    Shen and Xing, A Fast Knowledge Distillation Framework (2022), arXiv:2112.01528, with the tail
    kept as a class.

    Args:
        student: logits [B, C].
        teacher: logits of the same shape.
        top_k: K, at least 1; from C - 1 on no class is collapsed.
        temperature: T > 0, applied to the K + 1 probabilities.
        reduction: over samples.

    Returns:
        A scalar, or [B] with reduction `none`.

    Raises:
        InputError: K or T out of range, or shapes that differ.
    """
    check_pair(student, teacher)
    check_positive(temperature=temperature)
    if top_k < 1:
        raise InputError(f"top_k is {top_k}: it must be 1 or more")
    if top_k < teacher.shape[1] - 1:
        places = teacher.topk(top_k, 1).indices
        student, teacher = _collapse(student, places), _collapse(teacher, places)
    log_p = (teacher.detach() / temperature).log_softmax(1)
    log_q = (student / temperature).log_softmax(1)
    return reduce(temperature**2 * kl(log_p, log_q, 1), reduction)


def _collapse(logits: Tensor, places: Tensor) -> Tensor:
    """The logits at `places` and the logsumexp of all others, [B, K + 1]."""
    others = logits.scatter(1, places, -math.inf).logsumexp(1, keepdim=True)
    return torch.cat([logits.gather(1, places), others], 1)
