"""Weights for pseudo-labels that a teacher got wrong: the loss keeps its value on true labels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from limbeck.errors import InputError
from limbeck.functional.noise import as_distribution, as_floats, margins

Array = NDArray[np.float64]
Variant = Literal["ratio", "mean", "separate"]

_SMALLEST = 1e-6
"""Smallest probability whose logarithm counts: one sample must not decide a neighborhood."""
_FLOOR = 1e-3
"""Added to both sums of a ratio, which are 0 where the student is sure of the truth."""


def debias_weights(p: Tensor, distortion: Tensor) -> Tensor:
    """w = 1 / (1 + p (d − 1)): E[w · loss on the teacher's label] is the loss on the true label.

    Weighted Distillation with Unlabeled Examples (NeurIPS 2022).

    Args:
        p: how likely the teacher is wrong, in [0, 1].
        distortion: d > 0, the loss on the teacher's wrong labels over the loss on the true one.

    Returns:
        Weights of the same shape; above 1 where the student agrees with the wrong label.
    """
    return 1 / (1 + p * (distortion - 1))


def estimate_weights(
    student: Tensor,
    teacher_probs: Tensor,
    target: Tensor,
    pool_student: Tensor,
    pool_teacher_probs: Tensor,
    *,
    hard: bool = True,
    k: int | None = None,
    variant: Variant = "ratio",
    cap: float | None = 1.0,
    sample_weight: Tensor | None = None,
    rescale: bool = True,
) -> Tensor:
    """One weight a pool sample, from validation samples on which both are as confident.

    Weighted Distillation with Unlabeled Examples (NeurIPS 2022), its ESTIMATEWEIGHTS: each pool
    sample takes the mean over its k nearest validation samples in the plane of the teacher's and
    the student's margin. The paper leaves open what the mean is taken of; measured against known
    losses, `ratio` and `mean` remove most of the bias and `separate` leaves a third and more.

    Args:
        student: the student's probabilities on the validation samples [V, C].
        teacher_probs: the teacher's [V, C].
        target: true class ids [V].
        pool_student: the student's probabilities on the pool [N, C].
        pool_teacher_probs: the teacher's [N, C].
        hard: the teacher's likeliest class is the label that is trained on, else its
            probabilities.
        k: neighbors; None takes ⌈√V / 2⌉.
        variant: `ratio`, Σ true loss over Σ training loss of the neighbors; `mean`, one over the
            mean distortion; `separate`, `debias_weights` of the two means.
        cap: largest weight before rescaling; None: none. Above 1 a sample would count more the
            more the student believes its wrong label.
        sample_weight: of the validation samples [V], where their classes are not as frequent as in
            the pool.
        rescale: make the mean weight 1, so that the learning rate keeps its meaning.

    Returns:
        Weights [N], float64 on the CPU.

    Raises:
        InputError: shapes that do not fit, or all weights are 0.
    """
    if variant not in ("ratio", "mean", "separate"):
        raise InputError(f"variant is {variant!r}: it must be 'ratio', 'mean' or 'separate'")
    record = _record(student, teacher_probs, target, hard)
    queries = _plane(as_distribution(pool_student), as_distribution(pool_teacher_probs))
    count = len(record.wrong)
    near = nearest(record.plane, queries, min(k or math.ceil(math.sqrt(count) / 2), count))
    given = np.ones(count) if sample_weight is None else as_floats(sample_weight)
    weights = _raw_weights(record, near, given, variant)
    if cap is not None:
        weights = np.minimum(weights, cap)
    if rescale:
        weights = _rescaled(weights)
    return torch.from_numpy(weights)


@dataclass(frozen=True)
class _Record:
    """What the validation samples show: place, whether the teacher errs, and both losses."""

    plane: Array
    wrong: Array
    true_loss: Array
    label_loss: Array


def _record(student: Tensor, teacher: Tensor, target: Tensor, hard: bool) -> _Record:
    f, p = as_distribution(student), as_distribution(teacher)
    y = np.asarray(target.cpu())
    if f.shape != p.shape or y.shape != f.shape[:1]:
        raise InputError(
            f"student has shape {f.shape}, teacher {p.shape} and target {y.shape}: [V, C] twice "
            f"and [V] are needed"
        )
    guess = p.argmax(1)
    wrong = (guess != y).astype(float)
    log_f = -np.log(np.maximum(f, _SMALLEST))
    true = np.take_along_axis(log_f, y[:, None], 1)[:, 0]
    labels = np.eye(f.shape[1])[guess] if hard else p
    # Where the teacher is right its label costs what the truth does, soft or not.
    return _Record(_plane(f, p), wrong, true, np.where(wrong, (labels * log_f).sum(1), true))


def _plane(student: Array, teacher: Array) -> Array:
    return np.stack([margins(teacher), margins(student)], 1)


def _raw_weights(record: _Record, near: NDArray[np.int64], given: Array, variant: str) -> Array:
    share = given[near] / given[near].sum(1, keepdims=True)

    def mean(values: Array) -> Array:
        found: Array = (share * values[near]).sum(1)
        return found

    if variant == "ratio":
        floor = _FLOOR / near.shape[1]
        ratio: Array = (mean(record.true_loss) + floor) / (mean(record.label_loss) + floor)
        return ratio
    safe = np.maximum(record.true_loss, -math.log1p(-_SMALLEST))
    distortion = np.where(record.wrong, record.label_loss / safe, 1.0)
    if variant == "mean":
        return np.asarray(1 / mean(distortion))
    wrong, found = torch.from_numpy(mean(record.wrong)), torch.from_numpy(mean(distortion))
    return np.asarray(debias_weights(wrong, found))


def _rescaled(weights: Array) -> Array:
    if not weights.sum() > 0:
        raise InputError(
            "all weights are 0: the student has no loss on the validation samples; has it been "
            "trained on them?"
        )
    return np.asarray(weights / weights.mean())


def nearest(points: Array, queries: Array, k: int) -> NDArray[np.int64]:
    """The k nearest points of each query, nearest first; of equally near ones the first.

    Args:
        points: [V, D].
        queries: [N, D].
        k: at most V.

    Returns:
        Positions [N, k].
    """
    from scipy.spatial import KDTree

    spare = min(len(points), k + 8)
    distance, index = KDTree(points).query(queries, np.arange(1, spare + 1))
    order = np.lexsort((index, distance))
    found = np.take_along_axis(index, order, 1)[:, :k].astype(np.int64)
    # Where more are equally near than were asked for, the tree's choice is chance.
    unclear = np.flatnonzero((distance[:, -1] == distance[:, k - 1]) & (spare < len(points)))
    for rows in np.array_split(unclear, len(unclear) // 1024 + 1):
        squares = ((queries[rows, None] - points) ** 2).sum(-1)
        found[rows] = squares.argsort(1, kind="stable")[:, :k]
    return found
