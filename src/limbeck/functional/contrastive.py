"""Contrastive losses: a sample's embedding should name its own teacher's among many others."""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck.errors import InputError
from limbeck.functional._common import Reduction, check_positive, full_precision, reduce
from limbeck.functional.maps import at_least_float32


def crd_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    student_rows: Tensor,
    teacher_rows: Tensor,
    normalizers: Tensor,
    samples: int,
    temperature: float = 0.07,
    eps: float = 1e-7,
    reduction: Reduction = "mean",
) -> Tensor:
    """Noise-contrastive estimation against a memory (CRD: Tian et al., ICLR 2020, equation 18).

    With P = exp(v . m / T) / Z and the noise K / n, the student's embedding pays
    -log(P_0 / (P_0 + K / n)) - sum_k log((K / n) / (P_k + K / n)) against remembered teacher
    embeddings, row 0 being its own; so does the teacher's against the student's.

    Args:
        student: embeddings of norm one, (B, d).
        teacher: embeddings of norm one, (B, d); not detached, since the teacher's embedding layer
            is trained: detach the features under it.
        student_rows: remembered student embeddings (B, 1 + K, d), the sample's own first.
        teacher_rows: remembered teacher embeddings, the same rows.
        normalizers: Z of the student's and of the teacher's scores, shape (2,); constants, set
            once by `crd_normalizers`.
        samples: n, the number of training samples.
        temperature: T > 0.
        eps: added to both denominators.
        reduction: "mean", "sum" or "none" over the batch.

    Returns:
        A scalar, or (B,) with ``reduction="none"``.

    Raises:
        InputError: shapes that do not fit one another, an empty batch, or T <= 0.

    Reference code: HobbitLong/RepDistiller@b84f547 (crd/). `limbeck.nn.memory.ContrastMemory`
    keeps the rows.
    """
    scores = crd_scores(student, teacher, student_rows, teacher_rows, temperature)
    return crd_estimation(scores, normalizers, samples, eps=eps, reduction=reduction)


def crd_estimation(
    scores: tuple[Tensor, Tensor],
    normalizers: Tensor,
    samples: int,
    *,
    eps: float = 1e-7,
    reduction: Reduction = "mean",
) -> Tensor:
    """`crd_loss` from the scores of both sides, (B, 1 + K) each; other arguments as there."""
    noise = (scores[0].shape[1] - 1) / samples
    values = [_nce(score / normalizers[side], noise, eps) for side, score in enumerate(scores)]
    return reduce(values[0] + values[1], reduction)


def _nce(scores: Tensor, noise: float, eps: float) -> Tensor:
    positive, negative = scores[:, 0], scores[:, 1:]
    true = positive / (positive + noise + eps)
    false = noise / (negative + noise + eps)
    return -(true.log() + false.log().sum(1))


def crd_scores(
    student: Tensor,
    teacher: Tensor,
    student_rows: Tensor,
    teacher_rows: Tensor,
    temperature: float = 0.07,
) -> tuple[Tensor, Tensor]:
    """exp(v . m / T) of the student against the teacher's rows, and of the teacher the other way.

    Returns:
        Two tensors (B, 1 + K), not yet divided by Z; arguments and errors as in `crd_loss`.
    """
    check_positive(temperature=temperature)
    _check(student, teacher, student_rows, teacher_rows)
    student, teacher = at_least_float32(student, teacher)
    return (
        _scores(student, teacher_rows, temperature),
        _scores(teacher, student_rows, temperature),
    )


@full_precision
def _scores(embeddings: Tensor, rows: Tensor, temperature: float) -> Tensor:
    rows = rows.detach().to(embeddings.dtype)
    return torch.exp(torch.einsum("bd,bkd->bk", embeddings, rows) / temperature)


@full_precision
def crd_row_scores(
    embeddings: Tensor, rows: Tensor, picked: Tensor, temperature: float = 0.07
) -> Tensor:
    """One side of `crd_scores` for rows of a memory that are given by their numbers.

    Multiplying with all rows and picking then is some 20 times faster than to copy the picked rows
    first, and is done where its table (B, n) is no larger than those copies.

    Args:
        embeddings: (B, d), of norm one.
        rows: the memory, (n, d).
        picked: row numbers (B, 1 + K).
        temperature: T > 0.

    Returns:
        exp(v . m / T), (B, 1 + K).
    """
    check_positive(temperature=temperature)
    if len(rows) > picked.shape[1] * rows.shape[1]:
        return _scores(embeddings, rows[picked], temperature)
    # A copy, because the memory moves before the backward pass reads what it was.
    every = embeddings @ rows.detach().to(embeddings.dtype, copy=True).T
    return torch.exp(every.gather(1, picked) / temperature)


def crd_normalizers(scores: tuple[Tensor, Tensor], samples: int) -> Tensor:
    """Z of both sides as the first batch estimates it: the mean score times the samples; (2,)."""
    return torch.stack([score.detach().mean() * samples for score in scores])


def _check(student: Tensor, teacher: Tensor, student_rows: Tensor, teacher_rows: Tensor) -> None:
    found = (
        f"student {tuple(student.shape)}, teacher {tuple(teacher.shape)}, rows "
        f"{tuple(student_rows.shape)} and {tuple(teacher_rows.shape)}"
    )
    if student.dim() != 2 or student.shape != teacher.shape:
        raise InputError(
            f"crd_loss takes embeddings (B, d) of one shape, got {found}: "
            f"limbeck.nn.memory.Embedding is the adapter that maps features to them"
        )
    rows = (student.shape[0], student_rows.shape[1], student.shape[1])
    if student.numel() == 0 or student_rows.shape != rows or teacher_rows.shape != rows:
        raise InputError(f"crd_loss takes 1 + K rows (B, 1 + K, d) a side, got {found}")
