"""Adaptive KL: forward and reverse KL mixed by where teacher and student differ."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from limbeck.functional._common import Reduction, check_fraction, full_precision, kl
from limbeck.functional.sequence import IGNORE, reduce_tokens, token_log_probabilities

Boundary = Literal["tail", "head"]


@full_precision
def akl_head_share(
    student: Tensor,
    teacher: Tensor,
    *,
    mass: float = 0.5,
    boundary: Boundary = "tail",
    temperature: float = 1.0,
    normalized: bool = False,
) -> Tensor:
    """The forward KL's weight in `akl_loss`, [...]: the head's part of Σ |p_t − p_s|.

    Arguments as in `akl_loss`. No gradient flows through it.
    """
    check_fraction(mass=mass)
    log_q, log_p = token_log_probabilities(student.detach(), teacher, temperature, normalized)
    p, order = log_p.exp().sort(dim=-1, descending=True)
    gap = (p - log_q.exp().gather(-1, order)).abs()
    total = p.cumsum(-1)
    head = total - p < mass if boundary == "head" else total <= mass
    head = head.index_fill(-1, head.new_zeros(1, dtype=torch.long), True)
    return (gap * head).sum(-1) / gap.sum(-1).clamp(min=torch.finfo(gap.dtype).tiny)


@full_precision
def akl_loss(
    student: Tensor,
    teacher: Tensor,
    target: Tensor | None = None,
    *,
    mass: float = 0.5,
    boundary: Boundary = "tail",
    temperature: float = 1.0,
    normalized: bool = False,
    ignore_index: int = IGNORE,
    reduction: Reduction = "mean",
) -> Tensor:
    """Adaptive KL: h · forward + (1 − h) · reverse KL, h the head's part of the difference.

    Rethinking KL Divergence in KD for LLMs (COLING 2025). The head is the teacher's most likely
    tokens up to a probability of `mass`, the first one always among them.
    wutaiqiang/LLM_KD_AKL@ff278be:AKL.py.

    Args:
        student: logits [..., V].
        teacher: logits of the same shape.
        target: token ids [...], or None to count every token.
        mass: the head's probability, in [0, 1].
        boundary: where the token that crosses `mass` belongs: `tail` in the official code,
            `head` in songmzhang/DSKD@077337a.
        temperature: T > 0 of both.
        normalized: the inputs are log-probabilities; they are taken as they are.
        ignore_index: the target of tokens that do not count.
        reduction: over the tokens that count.
    """
    share = akl_head_share(
        student,
        teacher,
        mass=mass,
        boundary=boundary,
        temperature=temperature,
        normalized=normalized,
    )
    log_q, log_p = token_log_probabilities(student, teacher, temperature, normalized)
    values = share * kl(log_p, log_q, -1) + (1 - share) * kl(log_q, log_p, -1)
    return reduce_tokens(values, target, ignore_index, reduction)
