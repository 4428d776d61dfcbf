"""Token losses straight from hidden states: never all logits of a batch at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as tf
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from limbeck.errors import InputError
from limbeck.functional._common import Reduction, check_target, check_tensor
from limbeck.functional.sequence import IGNORE, gkd_jsd_loss, reduce_tokens


def fused_linear_loss(
    student: Tensor,
    student_weight: Tensor,
    teacher: Tensor,
    teacher_weight: Tensor,
    target: Tensor | None = None,
    *,
    loss: Callable[..., Tensor] = gkd_jsd_loss,
    student_bias: Tensor | None = None,
    teacher_bias: Tensor | None = None,
    chunk: int = 512,
    ignore_index: int = IGNORE,
    reduction: Reduction = "mean",
    **hyperparameters: Any,
) -> Tensor:
    """`loss` of the logits hidden · Wᵀ + b, computed `chunk` tokens at a time.

    Memory holds the logits of one chunk, forward and backward (the backward pass computes them
    again), instead of batch × length × vocabulary. The products run in the precision of the inputs,
    or of autocast, as the models' own heads would; the divergence in float32.
    As linkedin/Liger-Kernel@ead96b6 does for its divergences.

    Args:
        student: hidden states [..., H].
        student_weight: the head's weight [V, H].
        teacher: hidden states [..., G], the same leading shape.
        teacher_weight: the head's weight [V, G].
        target: token ids [...], or None to count every token.
        loss: any loss of this room with `target`, `ignore_index` and `reduction`.
        student_bias: the head's bias [V].
        teacher_bias: the head's bias [V].
        chunk: tokens at a time.
        ignore_index: the target of tokens that do not count.
        reduction: over the tokens that count.
        **hyperparameters: passed to `loss`.
    """
    check_heads(student, student_weight, teacher, teacher_weight, target, chunk)
    shape = student.shape[:-1]
    hidden, known = torch.flatten(student, 0, -2), torch.flatten(teacher.detach(), 0, -2)
    labels = None if target is None else target.flatten()
    options = {"ignore_index": ignore_index, "reduction": "none", **hyperparameters}

    def of_chunk(start: int) -> Tensor:
        part = slice(start, start + chunk)
        ours = tf.linear(hidden[part], student_weight, student_bias)
        theirs = tf.linear(known[part], teacher_weight, teacher_bias).detach()
        return loss(ours, theirs, None if labels is None else labels[part], **options)

    values = [
        checkpoint(of_chunk, start, use_reentrant=False, preserve_rng_state=False)
        for start in range(0, len(hidden), chunk)
    ]
    return reduce_tokens(torch.cat(values).view(shape), target, ignore_index, reduction)


def check_heads(
    student: Tensor,
    student_weight: Tensor,
    teacher: Tensor,
    teacher_weight: Tensor,
    target: Tensor | None,
    chunk: int,
) -> None:
    """Refuses hidden states and heads that do not give logits of one shape."""
    check_tensor(student, "student hidden states")
    check_tensor(teacher, "teacher hidden states")
    if student.shape[:-1] != teacher.shape[:-1] or len(student_weight) != len(teacher_weight):
        raise InputError(
            f"student {tuple(student.shape)} with head {tuple(student_weight.shape)} and teacher "
            f"{tuple(teacher.shape)} with head {tuple(teacher_weight.shape)}: the same tokens and "
            "the same vocabulary are needed on both sides"
        )
    if target is not None:
        check_target(target, student.shape[:-1])
    if chunk < 1:
        raise InputError(f"chunk is {chunk}: it must be 1 or more")
