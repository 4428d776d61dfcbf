"""Divergences of token distributions, for language models and other sequences.

Logits are [..., V]: the vocabulary along the last dimension, anything before it. `target` has the
shape without V and only says which tokens count: those that are not `ignore_index`. `mean` is over
the tokens that count, 0 where none does; `none` gives 0 at ignored tokens. No loss here multiplies
by T², as is usual for language models.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from limbeck.errors import InputError
from limbeck.functional._common import (
    Reduction,
    check_fraction,
    check_pair,
    check_positive,
    check_target,
    full_precision,
    kl,
)

IGNORE = -100


def token_log_probabilities(
    student: Tensor, teacher: Tensor, temperature: float, normalized: bool
) -> tuple[Tensor, Tensor]:
    """log softmax(z/T) of both, the teacher's detached; −inf becomes the lowest finite number.

    So a vocabulary entry that a model rules out has probability 0 and gives no NaN.
    """
    check_pair(student, teacher)
    check_positive(temperature=temperature)
    teacher = teacher.detach()
    if not normalized:
        student, teacher = student / temperature, teacher / temperature
        student, teacher = student.log_softmax(-1), teacher.log_softmax(-1)
    lowest = torch.finfo(student.dtype).min
    return student.clamp(min=lowest), teacher.clamp(min=lowest)


def reduce_tokens(
    values: Tensor, target: Tensor | None, ignore_index: int, reduction: Reduction
) -> Tensor:
    """Mean or sum over the tokens that count, or one value a token."""
    if reduction not in ("mean", "sum", "none"):
        raise InputError(f"reduction is {reduction!r}: it must be 'mean', 'sum' or 'none'")
    counted: Tensor | int = values.numel()
    if target is not None:
        check_target(target, values.shape)
        mask = target != ignore_index
        values, counted = torch.where(mask, values, 0.0), mask.sum().clamp(min=1)
    if reduction == "none":
        return values
    return values.sum() / counted if reduction == "mean" else values.sum()


@full_precision
def fkl_loss(
    student: Tensor,
    teacher: Tensor,
    target: Tensor | None = None,
    *,
    temperature: float = 1.0,
    cross_entropy: bool = False,
    normalized: bool = False,
    ignore_index: int = IGNORE,
    reduction: Reduction = "mean",
) -> Tensor:
    """Forward KL(p_t ‖ p_s) of each token. huggingface/trl@f2cd577: generalized_jsd_loss, β = 0.

    Args:
        student: logits [..., V].
        teacher: logits of the same shape.
        target: token ids [...], or None to count every token.
        temperature: T > 0 of both.
        cross_entropy: leave the teacher's entropy in the value (distillm, torchtune); the gradient
            is the same.
        normalized: the inputs are log-probabilities; they are taken as they are.
        ignore_index: the target of tokens that do not count.
        reduction: over the tokens that count.
    """
    log_q, log_p = token_log_probabilities(student, teacher, temperature, normalized)
    values = kl(log_p, log_q, -1, cross_entropy=cross_entropy)
    return reduce_tokens(values, target, ignore_index, reduction)


@full_precision
def rkl_loss(
    student: Tensor,
    teacher: Tensor,
    target: Tensor | None = None,
    *,
    temperature: float = 1.0,
    normalized: bool = False,
    ignore_index: int = IGNORE,
    reduction: Reduction = "mean",
) -> Tensor:
    """Reverse KL(p_s ‖ p_t) of each token: MiniLLM (ICLR 2024). jongwooko/distillm@d47e77f.

    Arguments as in `fkl_loss`.
    """
    log_q, log_p = token_log_probabilities(student, teacher, temperature, normalized)
    return reduce_tokens(kl(log_q, log_p, -1), target, ignore_index, reduction)


@full_precision
def symkl_loss(
    student: Tensor,
    teacher: Tensor,
    target: Tensor | None = None,
    *,
    reverse: float = 0.9,
    temperature: float = 1.0,
    cross_entropy: bool = False,
    normalized: bool = False,
    ignore_index: int = IGNORE,
    reduction: Reduction = "mean",
) -> Tensor:
    """(1 − λ) · forward KL + λ · reverse KL. jongwooko/distillm@d47e77f:distillm/losses.py.

    Args:
        student: logits [..., V].
        teacher: logits of the same shape.
        target: token ids [...], or None to count every token.
        reverse: λ in [0, 1], the weight of the reverse KL.
        temperature: T > 0 of both.
        cross_entropy: leave the teacher's entropy in the forward term, as distillm does.
        normalized: the inputs are log-probabilities; they are taken as they are.
        ignore_index: the target of tokens that do not count.
        reduction: over the tokens that count.
    """
    check_fraction(reverse=reverse)
    log_q, log_p = token_log_probabilities(student, teacher, temperature, normalized)
    forward = kl(log_p, log_q, -1, cross_entropy=cross_entropy)
    values = (1 - reverse) * forward + reverse * kl(log_q, log_p, -1)
    return reduce_tokens(values, target, ignore_index, reduction)


def _mixture(log_p: Tensor, log_q: Tensor, share: float) -> Tensor:
    """log(share · p + (1 − share) · q)."""
    if share in (0, 1):
        return log_p if share else log_q
    return torch.logaddexp(log_p + math.log(share), log_q + math.log1p(-share))


@full_precision
def jsd_loss(
    student: Tensor,
    teacher: Tensor,
    target: Tensor | None = None,
    *,
    beta: float = 0.5,
    temperature: float = 1.0,
    normalized: bool = False,
    ignore_index: int = IGNORE,
    reduction: Reduction = "mean",
) -> Tensor:
    """β KL(p_t ‖ m) + (1 − β) KL(p_s ‖ m), m = β p_t + (1 − β) p_s; 0 at β = 0 and β = 1.

    jongwooko/distillm@d47e77f: js_distance, whose λ is 1 − β. Other arguments as in `fkl_loss`.
    """
    check_fraction(beta=beta)
    log_q, log_p = token_log_probabilities(student, teacher, temperature, normalized)
    log_m = _mixture(log_p, log_q, beta)
    values = beta * kl(log_p, log_m, -1) + (1 - beta) * kl(log_q, log_m, -1)
    return reduce_tokens(values, target, ignore_index, reduction)


def gkd_jsd_loss(
    student: Tensor,
    teacher: Tensor,
    target: Tensor | None = None,
    *,
    beta: float = 0.5,
    temperature: float = 1.0,
    normalized: bool = False,
    ignore_index: int = IGNORE,
    reduction: Reduction = "mean",
) -> Tensor:
    """`jsd_loss` for 0 < β < 1, the forward KL at β = 0 and the reverse KL at β = 1.

    On-Policy Distillation of Language Models (ICLR 2024), eq. (1). The ends are the limits of
    JSD / β and JSD / (1 − β), so the value jumps there, as in huggingface/trl@f2cd577 and in
    linkedin/Liger-Kernel@ead96b6. Other arguments as in `fkl_loss`.
    """
    check_fraction(beta=beta)
    ends = {0.0: fkl_loss, 1.0: rkl_loss}
    loss = ends.get(beta, functools.partial(jsd_loss, beta=beta))
    return loss(
        student,
        teacher,
        target,
        temperature=temperature,
        normalized=normalized,
        ignore_index=ignore_index,
        reduction=reduction,
    )


@full_precision
def skl_loss(
    student: Tensor,
    teacher: Tensor,
    target: Tensor | None = None,
    *,
    skew: float = 0.1,
    temperature: float = 1.0,
    cross_entropy: bool = False,
    normalized: bool = False,
    ignore_index: int = IGNORE,
    reduction: Reduction = "mean",
) -> Tensor:
    """Skewed forward KL(p_t ‖ λ p_t + (1 − λ) p_s): DistiLLM (ICML 2024).

    jongwooko/distillm@d47e77f: skewed_forward_kl. Other arguments as in `fkl_loss`.

    Args:
        student: logits [..., V].
        teacher: logits of the same shape.
        target: token ids [...], or None to count every token.
        skew: λ in [0, 1], the share of the other side in the mixture.
        temperature: T > 0 of both.
        cross_entropy: leave the teacher's entropy in the value, as distillm does.
        normalized: the inputs are log-probabilities; they are taken as they are.
        ignore_index: the target of tokens that do not count.
        reduction: over the tokens that count.
    """
    check_fraction(skew=skew)
    log_q, log_p = token_log_probabilities(student, teacher, temperature, normalized)
    values = kl(log_p, _mixture(log_p, log_q, skew), -1, cross_entropy=cross_entropy)
    return reduce_tokens(values, target, ignore_index, reduction)


@full_precision
def srkl_loss(
    student: Tensor,
    teacher: Tensor,
    target: Tensor | None = None,
    *,
    skew: float = 0.1,
    temperature: float = 1.0,
    normalized: bool = False,
    ignore_index: int = IGNORE,
    reduction: Reduction = "mean",
) -> Tensor:
    """Skewed reverse KL(p_s ‖ λ p_s + (1 − λ) p_t): DistiLLM (ICML 2024).

    jongwooko/distillm@d47e77f: skewed_reverse_kl. Arguments as in `skl_loss`.
    """
    check_fraction(skew=skew)
    log_q, log_p = token_log_probabilities(student, teacher, temperature, normalized)
    return reduce_tokens(
        kl(log_q, _mixture(log_q, log_p, skew), -1), target, ignore_index, reduction
    )


@full_precision
def tvd_loss(
    student: Tensor,
    teacher: Tensor,
    target: Tensor | None = None,
    *,
    temperature: float = 1.0,
    normalized: bool = False,
    ignore_index: int = IGNORE,
    reduction: Reduction = "mean",
) -> Tensor:
    """Total variation ½ Σ |p_t − p_s| of each token: f-DISTILL (ACL 2023).

    jongwooko/distillm@d47e77f: tv_distance. Arguments as in `fkl_loss`.
    """
    log_q, log_p = token_log_probabilities(student, teacher, temperature, normalized)
    values = (log_p.exp() - log_q.exp()).abs().sum(-1) / 2
    return reduce_tokens(values, target, ignore_index, reduction)
