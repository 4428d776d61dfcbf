"""Universal logit distillation: teacher and student with different vocabularies."""

from __future__ import annotations

import torch
import torch.nn.functional as tf
from torch import Tensor

from limbeck.errors import InputError
from limbeck.functional._common import (
    Reduction,
    check_positive,
    check_target,
    check_tensor,
    full_precision,
    reduce,
)
from limbeck.functional.sequence import IGNORE


@full_precision
def uld_loss(
    student: Tensor,
    teacher: Tensor,
    target: Tensor | None = None,
    teacher_target: Tensor | None = None,
    *,
    temperature: float = 1.0,
    teacher_temperature: float | None = None,
    shift: bool = True,
    skip_student_end: bool = False,
    skip_teacher_end: bool = False,
    ignore_index: int = IGNORE,
    reduction: Reduction = "mean",
) -> Tensor:
    """Σ_v |sort(p_s) − sort(p_t)| over the tokens of the answers, paired by order.

    Towards Cross-Tokenizer Distillation: the Universal Logit Distillation Loss (TMLR 2025): the
    Wasserstein distance of two vocabularies without a common order, the smaller one filled up
    with zeros. A sample's value is the mean over the length of the shorter answer.
    Nicolas-BZRD/llm-recipes@ab6e798:models/distillation_model.py.

    Args:
        student: logits [B, L, V].
        teacher: logits [B, M, W]; lengths and vocabularies may differ.
        target: the student's token ids [B, L], `ignore_index` outside the answer; None: all tokens.
        teacher_target: the same for the teacher [B, M].
        temperature: T > 0 of the student.
        teacher_temperature: T > 0 of the teacher; None: the same.
        shift: the logits at a position predict the token after it; False: the token there.
        skip_student_end: leave out the last token of the student's answers.
        skip_teacher_end: leave out the last token of the teacher's answers.
        ignore_index: the target of tokens outside the answer.
        reduction: over samples.
    """
    teacher_temperature = temperature if teacher_temperature is None else teacher_temperature
    check_positive(temperature=temperature, teacher_temperature=teacher_temperature)
    _check(student, teacher)
    ours, n_ours = _answers(student, target, ignore_index, shift, skip_student_end)
    theirs, n_theirs = _answers(
        teacher.detach(), teacher_target, ignore_index, shift, skip_teacher_end
    )
    length = min(ours.shape[1], theirs.shape[1])
    q = (ours[:, :length] / temperature).softmax(-1).sort(dim=-1, descending=True).values
    p = (theirs[:, :length] / teacher_temperature).softmax(-1).sort(dim=-1, descending=True).values
    wider = max(q.shape[-1], p.shape[-1])
    q, p = (tf.pad(x, (0, wider - x.shape[-1])) for x in (q, p))
    shorter = torch.minimum(n_ours, n_theirs).unsqueeze(1)
    counts = torch.arange(length, device=q.device) < shorter
    distances = torch.where(counts, (q - p).abs().sum(-1), 0.0)
    return reduce(distances.sum(1) / shorter.squeeze(1).clamp(min=1), reduction)


def _check(student: Tensor, teacher: Tensor) -> None:
    check_tensor(student, "student logits", dimensions=3)
    check_tensor(teacher, "teacher logits", dimensions=3)
    if student.dim() != 3 or teacher.dim() != 3 or len(student) != len(teacher):
        raise InputError(
            f"student logits have shape {tuple(student.shape)} and teacher logits "
            f"{tuple(teacher.shape)}: [batch, length, vocabulary] with one batch size is needed"
        )


def _answers(
    logits: Tensor, target: Tensor | None, ignore_index: int, shift: bool, skip_end: bool
) -> tuple[Tensor, Tensor]:
    """The logits of each answer's tokens moved to the front, and how many there are."""
    if target is None:
        return logits, torch.full((len(logits),), logits.shape[1] - skip_end, device=logits.device)
    check_target(target, logits.shape[:-1])
    answer = target != ignore_index
    if shift:
        logits, answer = logits[:, :-1], answer[:, 1:]
    order = (~answer).int().argsort(dim=1, stable=True)
    front = logits.gather(1, order.unsqueeze(-1).expand_as(logits))
    return front, (answer.sum(1) - int(skip_end)).clamp(min=0)
