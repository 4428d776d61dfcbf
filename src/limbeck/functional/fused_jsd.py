"""The generalized JSD of two language model heads: value and gradient in one pass, by chunks."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from limbeck.functional._common import check_fraction, check_positive, full_precision
from limbeck.functional.fused import check_heads
from limbeck.functional.sequence import IGNORE


@full_precision
def fused_linear_jsd_loss(
    student: Tensor,
    student_weight: Tensor,
    teacher: Tensor,
    teacher_weight: Tensor,
    target: Tensor | None = None,
    *,
    student_bias: Tensor | None = None,
    teacher_bias: Tensor | None = None,
    beta: float = 0.5,
    temperature: float = 1.0,
    chunk: int = 128,
    ignore_index: int = IGNORE,
    reduction: Literal["mean", "sum"] = "mean",
) -> Tensor:
    """`gkd_jsd_loss` of the logits hidden · Wᵀ + b: β = 0 the forward, β = 1 the reverse KL.

    Four buffers of `chunk` × V numbers serve all tokens, and the gradients are computed beside the
    value, so the products are those of the plain form and no more. All of it is in float32 or
    better; `fused_linear_loss` does it in half precision, for any loss. Differentiable once.
    As linkedin/Liger-Kernel@ead96b6 does in its kernels.

    Args:
        student: hidden states [..., H].
        student_weight: the head's weight [V, H].
        teacher: hidden states [..., G], the same leading shape.
        teacher_weight: the head's weight [V, G].
        target: token ids [...], or None to count every token.
        student_bias: the head's bias [V].
        teacher_bias: the head's bias [V].
        beta: the teacher's share of the mixture, in [0, 1].
        temperature: T > 0 of both.
        chunk: tokens at a time.
        ignore_index: the target of tokens that do not count.
        reduction: over the tokens that count; there is no value for each.
    """
    check_heads(student, student_weight, teacher, teacher_weight, target, chunk)
    check_fraction(beta=beta)
    check_positive(temperature=temperature)
    counts = student.new_ones(student.shape[:-1]) if target is None else target != ignore_index
    counts = counts.flatten().to(student.dtype)
    if reduction == "mean":
        counts = counts / counts.sum().clamp(min=1)
    total: Tensor = _FusedJSD.apply(  # type: ignore[no-untyped-call]
        torch.flatten(student, 0, -2),
        student_weight,
        student_bias,
        torch.flatten(teacher.detach(), 0, -2),
        teacher_weight.detach(),
        None if teacher_bias is None else teacher_bias.detach(),
        counts,
        beta,
        temperature,
        chunk,
    )
    return total


class _FusedJSD(torch.autograd.Function):
    """Σ over tokens of counts · JSD, with the gradients; the backward pass only scales them."""

    @staticmethod
    def forward(
        ctx: Any,
        student: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        teacher: Tensor,
        teacher_weight: Tensor,
        teacher_bias: Tensor | None,
        counts: Tensor,
        beta: float,
        temperature: float,
        chunk: int,
    ) -> Tensor:
        total = student.new_zeros(())
        inputs = zip((student, weight, bias), ctx.needs_input_grad[:3], strict=True)
        gradients = [
            torch.zeros_like(x) if needed and x is not None else None for x, needed in inputs
        ]
        buffers = student.new_empty(4, min(chunk, len(student)), len(weight))
        for start in range(0, len(student), chunk):
            part = slice(start, start + chunk)
            log_q, log_p, *spare = buffers[:, : len(student[part])]
            _log_softmax(student[part], weight, bias, temperature, spare[0], log_q)
            _log_softmax(teacher[part], teacher_weight, teacher_bias, temperature, spare[0], log_p)
            total += (counts[part] * _jsd_(log_q, log_p, beta, *spare)).sum()
            slope = log_q.mul_(counts[part].unsqueeze(1) / temperature)
            _accumulate(gradients, slope, student[part], weight, part)
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        scaled = [None if g is None else upstream * g for g in ctx.saved_tensors]
        return *scaled, *[None] * 7


def _log_softmax(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    temperature: float,
    spare: Tensor,
    out: Tensor,
) -> None:
    """Writes log softmax((hidden · Wᵀ + b) / T) to `out`."""
    torch.mm(hidden, weight.T, out=spare)
    if bias is not None:
        spare.add_(bias)
    torch.log_softmax(spare.div_(temperature), -1, out=out)


def _jsd_(log_q: Tensor, log_p: Tensor, beta: float, x: Tensor, y: Tensor) -> Tensor:
    """Each token's JSD; `log_q` becomes its gradient with respect to logits / T, the rest scrap."""
    if beta == 0:
        p = torch.exp(log_p, out=x)
        values = torch.sub(log_p, log_q, out=y).mul_(p).sum(-1)
        log_q.exp_().sub_(p)
        return values
    share = 1.0 if beta == 1 else 1 - beta
    forward: Tensor | float = 0.0
    log_m = log_p
    if beta < 1:
        torch.add(log_p, math.log(beta), out=x)
        log_m = torch.logaddexp(x, torch.add(log_q, math.log1p(-beta), out=y), out=x)
        p = torch.exp(log_p, out=y)
        forward = log_p.sub_(log_m).mul_(p).sum(-1)
    q = torch.exp(log_q, out=y)
    log_q.sub_(log_m)
    reverse = torch.mul(q, log_q, out=x).sum(-1)
    log_q.sub_(reverse.unsqueeze(1)).mul_(q).mul_(share)
    return beta * forward + share * reverse if beta < 1 else reverse


def _accumulate(
    gradients: list[Tensor | None], slope: Tensor, hidden: Tensor, weight: Tensor, part: slice
) -> None:
    """Adds one chunk to the gradients of hidden states, weight and bias."""
    student, head, bias = gradients
    if student is not None:
        torch.mm(slope, weight, out=student[part])
    if head is not None:
        head.addmm_(slope.T, hidden)
    if bias is not None:
        bias.add_(slope.sum(0))
