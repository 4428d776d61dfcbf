"""What a pre-flight check says, and the checks on logits and labels alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from limbeck.functional import ece, nll

Level = Literal["good", "note", "warning"]
PERMUTED = 0.2
"""By how much of the accuracy another order of the classes must be better to be named."""


@dataclass(frozen=True)
class Finding:
    """One check.

    Attributes:
        name: what was checked.
        level: "warning" where something should be mended first.
        words: what was found, and how to mend it.
        value: the figure behind it.
    """

    name: str
    level: Level
    words: str
    value: float | None = None


def teacher_quality(
    logits: Tensor, y: Tensor, classes: Sequence[str], student: Tensor
) -> list[Finding]:
    """Accuracy, order of the classes, confidence and calibration of the teacher.

    Args:
        logits: the teacher's of held-out samples, [N, C].
        y: their labels, [N].
        classes: names in label order.
        student: the student's logits of the same samples, as it stands.
    """
    accuracy = _accuracy(logits, y)
    chance = float(torch.bincount(y, minlength=len(classes)).max()) / len(y)
    level: Level = "good" if accuracy > chance + 0.05 else "warning"
    words = f"{accuracy:.1%} right; the most frequent class alone gives {chance:.1%}"
    found = [Finding("teacher's accuracy", level, words, accuracy)]
    order = better_order(logits, y)
    if order is not None:
        names = ", ".join(classes[place] for place in order)
        right = _accuracy(logits[:, torch.tensor(order).argsort()], y)
        words = (
            f"with its outputs read as [{names}] the teacher is {right:.1%} right: its classes "
            f"stand in another order; say so with --teacher.classes"
        )
        found.append(Finding("order of the classes", "warning", words, right))
    agree = float((logits.argmax(1) == student.argmax(1)).double().mean())
    words = f"the student as it stands agrees on {agree:.1%} of the samples"
    return [*found, *confidence(logits, y), Finding("agreement", "note", words, agree)]


def _accuracy(logits: Tensor, y: Tensor) -> float:
    return float((logits.argmax(1) == y).double().mean())


def better_order(logits: Tensor, y: Tensor) -> list[int] | None:
    """The class that each output stands for, where a permutation is far better than none."""
    from scipy.optimize import linear_sum_assignment

    classes = logits.shape[1]
    counts = torch.zeros(classes, classes)
    counts.index_put_((logits.argmax(1), y), torch.ones(len(y)), accumulate=True)
    outputs, meant = linear_sum_assignment(-counts.numpy())
    right = float(counts[outputs, meant].sum()) / len(y)
    plain = float(counts.diagonal().sum()) / len(y)
    return [int(place) for place in meant] if right > plain + PERMUTED else None


def confidence(logits: Tensor, y: Tensor) -> list[Finding]:
    """How sure the teacher is, and whether it may be."""
    probabilities = logits.double().softmax(1)
    sure = float(probabilities.amax(1).mean())
    error = float(ece(probabilities, y))
    loss = float(nll(probabilities, y))
    level: Level = "warning" if sure > 0.995 else "good"
    words = f"mean confidence {sure:.1%}"
    if level == "warning":
        words += ": its soft labels are nearly hard ones; a higher temperature opens them"
    calibrated: Level = "note" if error > 0.05 else "good"
    return [
        Finding("teacher's confidence", level, words, sure),
        Finding("teacher's calibration", calibrated, f"ECE {error:.3f}, NLL {loss:.3f}", error),
    ]


def capacity(student: int, teacher: int | None) -> Finding:
    """Parameters of both; None: the teacher is stored."""
    if teacher is None:
        return Finding("capacity", "note", f"student {student:,} parameters, teacher stored")
    ratio = teacher / max(student, 1)
    words = f"student {student:,}, teacher {teacher:,} parameters: {ratio:.1f} to 1"
    if ratio > 100:
        return Finding(
            "capacity", "note", f"{words}; a gap as wide often needs a go-between", ratio
        )
    if ratio < 1:
        return Finding("capacity", "note", f"{words}; the student is the larger one", ratio)
    return Finding("capacity", "good", words, ratio)


def cost(seconds: float, samples: int, classes: int, epochs: int) -> list[Finding]:
    """What the teacher will cost: its time in every epoch, and its outputs stored once.

    Args:
        seconds: that it took for one sample.
        samples: in an epoch.
        classes: width of its logits.
        epochs: of the training.
    """
    epoch, stored = seconds * samples, 2 * samples * classes
    live = f"{epoch:.1f} s an epoch, {epoch * epochs:.0f} s in {epochs}, if it runs on every batch"
    words = f"{stored / 2**20:.1f} MiB in half precision for {samples:,} samples, one view"
    return [
        Finding("teacher's time", "note", live, epoch),
        Finding("store", "note", words, float(stored)),
    ]
