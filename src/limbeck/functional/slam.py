"""Student-label mixing: the teacher's expected noise is added to the student's prediction."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from limbeck.errors import InputError
from limbeck.functional._common import (
    Reduction,
    check_pair,
    check_positive,
    check_target,
    check_tensor,
    full_precision,
    one_hot,
    reduce,
)

Tail = Literal["keep", "drop"]


@full_precision
def slam_mix(
    student: Tensor,
    teacher_probs: Tensor,
    *,
    alpha: Tensor | float,
    k: Tensor | int | None = None,
    normalize: bool = False,
    temperature: float = 1.0,
) -> Tensor:
    """α f + (1 − α) κ M (1 − f): what the teacher is expected to say where the student is right.

    f is the student's prediction, α the teacher's accuracy for a sample, and M marks the k classes
    that it finds likeliest. κ = 1 is what the authors ran, and is consistent for every pattern of
    errors while α > 1/2; κ = 1/(k − 1) is the paper's definition, consistent for errors that are
    uniform over the k − 1 other classes, and of use down to α = 1/k. With κ = 1 the result sums to
    1 or more.
    SLaM: Student-Label Mixing for Distillation with Unlabeled Examples (NeurIPS 2023).

    Args:
        student: logits [B, C].
        teacher_probs: the teacher's probabilities [B, C]; only their order is read.
        alpha: the teacher's accuracy in (0, 1], one number or [B].
        k: the true class is among the teacher's k likeliest, 2 to C, one number or [B]; ties go
            to the smaller class id. None takes all classes.
        normalize: κ = 1/(k − 1) in place of 1.
        temperature: T > 0 of the student.

    Returns:
        The mixed predictions [B, C].
    """
    return _log_mix(student, teacher_probs, alpha, k, normalize, temperature).exp()


@full_precision
def slam_loss(
    student: Tensor,
    teacher_probs: Tensor,
    *,
    alpha: Tensor | float,
    k: Tensor | int | None = None,
    hard: bool = False,
    normalize: bool = False,
    tail: Tail = "keep",
    temperature: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """−T² Σ y log mix, the cross-entropy of a pseudo-label y and `slam_mix`.

    Where y is hard this is cross-entropy whose gradient is weighted by how much the student
    believes the label itself: a label that it strongly disbelieves stops to pull. α = 1 is plain
    cross-entropy. Below α = 1/2 (1/k with `normalize`) the loss pushes away from the label: bound
    α from below, as `calibrate_noise` does.
    SLaM: Student-Label Mixing for Distillation with Unlabeled Examples (NeurIPS 2023).

    Args:
        student: logits [B, C].
        teacher_probs: the teacher's probabilities [B, C].
        alpha: the teacher's accuracy in (0, 1], one number or [B].
        k: how many of the teacher's likeliest classes are mixed, see `slam_mix`. With hard labels
            and κ = 1 it changes nothing.
        hard: y is one-hot at the teacher's likeliest class (the smallest of several), else the
            teacher's probabilities at temperature T.
        normalize: κ = 1/(k − 1) in place of 1.
        tail: what becomes of the part of y outside the k classes, which is not mixed and pulls with
            full strength: `drop` sets it to zero.
        temperature: T > 0.
        reduction: over samples.

    Returns:
        A scalar, or [B] with reduction `none`.
    """
    log_mix = _log_mix(student, teacher_probs, alpha, k, normalize, temperature)
    labels = _labels(teacher_probs.detach(), hard, temperature)
    if tail == "drop" and k is not None:
        labels = labels * _likeliest(teacher_probs, k)
    elif tail not in ("keep", "drop"):
        raise InputError(f"tail is {tail!r}: it must be 'keep' or 'drop'")
    return reduce(-(temperature**2) * (labels * log_mix).sum(1), reduction)


def _labels(probs: Tensor, hard: bool, temperature: float) -> Tensor:
    if hard:
        return one_hot(probs, probs.argmax(1))
    return probs if temperature == 1 else (probs.log() / temperature).softmax(1)


def _log_mix(
    student: Tensor,
    probs: Tensor,
    alpha: Tensor | float,
    k: Tensor | int | None,
    normalize: bool,
    temperature: float,
) -> Tensor:
    """log(α f + (1 − α) κ M (1 − f)), exact also where f is next to 0 or 1."""
    check_pair(student, probs, "predictions")
    check_positive(temperature=temperature)
    log_f = (student / temperature).log_softmax(1)
    accuracy = _column(alpha, log_f, "alpha")
    count = _column(student.shape[1] if k is None else k, log_f, "k")
    rest = (1 - accuracy) / (count - 1) if normalize else 1 - accuracy
    # The smallest number in place of 0: two minus infinities would have no gradient.
    ours = accuracy.clamp(min=torch.finfo(log_f.dtype).tiny).log() + log_f
    others = rest.log() + _log_others(log_f)
    if k is not None:
        others = others.masked_fill(~_likeliest(probs, k), -math.inf)
    return torch.logaddexp(ours, others)


def _log_others(log_f: Tensor) -> Tensor:
    """log(1 − f), for the largest f by the sum of the others: 1 − f would round to 0."""
    top = one_hot(log_f, log_f.argmax(1)).bool()
    of_top = log_f.masked_fill(top, torch.finfo(log_f.dtype).min).logsumexp(1, keepdim=True)
    of_others = torch.log1p(-log_f.masked_fill(top, -1.0).exp())
    return torch.where(top, of_top, of_others)


def _likeliest(probs: Tensor, k: Tensor | int) -> Tensor:
    """Which classes are among the k likeliest, bool [B, C]."""
    rank = probs.argsort(dim=1, descending=True, stable=True).argsort(1)
    return rank < (k[:, None] if isinstance(k, Tensor) else k)


def _column(value: Tensor | float, like: Tensor, name: str) -> Tensor:
    """One number a sample, [B, 1] or [1, 1], of the type of `like`."""
    if isinstance(value, Tensor) and value.shape != like.shape[:1]:
        raise InputError(
            f"{name} has shape {tuple(value.shape)}: one number, or one for each of the "
            f"{len(like)} samples, is needed"
        )
    if not isinstance(value, Tensor):
        _check_number(value, like.shape[1], name)
    return torch.as_tensor(value, dtype=like.dtype, device=like.device).reshape(-1, 1)


def _check_number(value: float, classes: int, name: str) -> None:
    """Refuses what a number can show at once; tensors pass, reading them would wait."""
    low, high = (0, 1) if name == "alpha" else (2, classes)
    if not low <= value <= high or value == 0:
        raise InputError(f"{name} is {value}: it must lie between {low} and {high}")


@full_precision
def forward_loss(
    student: Tensor,
    teacher_probs: Tensor,
    confusion: Tensor,
    *,
    hard: bool = True,
    reduction: Reduction = "mean",
) -> Tensor:
    """−Σ_j y_j log Σ_z f_z P(teacher says j | true class z): forward correction.

    The student's prediction is sent through the teacher's confusion matrix before it is compared;
    right where errors depend on the class alone.
    Patrini et al., Making Deep Neural Networks Robust to Label Noise (CVPR 2017), theorem 2.

    Args:
        student: logits [B, C].
        teacher_probs: the teacher's probabilities [B, C].
        confusion: [C, C], rows the true class, columns the teacher's; rows sum to 1.
        hard: y is one-hot at the teacher's likeliest class, else its probabilities.
        reduction: over samples.
    """
    check_pair(student, teacher_probs, "predictions")
    log_f = student.log_softmax(1)
    mixed = (log_f[:, :, None] + confusion.to(log_f).log()).logsumexp(1)
    return reduce(-(_labels(teacher_probs.detach(), hard, 1.0) * mixed).sum(1), reduction)


@full_precision
def taylor_loss(
    student: Tensor, target: Tensor, *, order: int = 2, reduction: Reduction = "mean"
) -> Tensor:
    """Σ_i (1 − f_y)^i / i up to `order`: Taylor cross-entropy, bounded and so robust to noise.

    Feng et al., Can Cross Entropy Loss Be Robust to Label Noise? (IJCAI 2020), equation 7.

    Args:
        student: logits [B, C].
        target: class ids [B].
        order: 1 is the mean absolute error, infinity would be cross-entropy.
        reduction: over samples.
    """
    check_tensor(student, "student logits")
    check_target(target, student.shape[:1])
    if order < 1:
        raise InputError(f"order is {order}: it must be 1 or more")
    miss = 1 - student.softmax(1).gather(1, target[:, None]).squeeze(1)
    powers = [miss**degree / degree for degree in range(1, order + 1)]
    return reduce(torch.stack(powers).sum(0), reduction)
