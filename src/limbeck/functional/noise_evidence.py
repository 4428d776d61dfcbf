"""What a validation set says about a teacher's mistakes, and which way of training it favors."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from limbeck.functional.noise import as_distribution, calibrate_noise, margins

Arm = Literal["labels", "pseudo_label", "forward", "slam"]

_PAIRED, _TELLING, _PERFECT = 0.6, 0.65, 0.05
_BINS = 10


@dataclass(frozen=True)
class NoiseEvidence:
    """How a teacher errs.

    Attributes:
        samples: validation samples.
        accuracy: of the teacher on them.
        auc: how well the margin tells right from wrong: 0.5 not at all, 1 wholly; NaN where the
            teacher is always right or always wrong.
        paired: share of the errors that fall on the most frequent wrong label of their class; NaN
            without errors, and for two classes, where there is but one wrong label.
        by_margin: rows of (lowest margin, samples, accuracy), about equally many samples a row.
        expected_noise: share of the pool's pseudo-labels that is likely wrong; None without a pool.
        arm: the method that the evidence favors.
        reason: why, in one sentence.
    """

    samples: int
    accuracy: float
    auc: float
    paired: float
    by_margin: tuple[tuple[float, int, float], ...]
    expected_noise: float | None
    arm: Arm
    reason: str

    def as_json(self) -> dict[str, Any]:
        """The evidence as plain data."""
        return asdict(self)


def noise_evidence(
    teacher_probs: Tensor, target: Tensor, pool_teacher_probs: Tensor | None = None
) -> NoiseEvidence:
    """Look at a teacher's mistakes on samples that it has not learned from.

    The choice of a method is a rule of thumb: errors that depend on the class favor forward
    correction, errors that the margin shows favor SLaM, few errors plain pseudo-labels, and a
    teacher that knows no more than the most frequent class favors labels alone.

    Args:
        teacher_probs: probabilities [V, C].
        target: true class ids [V].
        pool_teacher_probs: on the pool [N, C], for the noise to expect there.
    """
    probs, y = as_distribution(teacher_probs), np.asarray(target.cpu())
    guess, margin = probs.argmax(1), margins(probs)
    right = guess == y
    noise = None
    if pool_teacher_probs is not None:
        model = calibrate_noise(teacher_probs, target, lower=0.0, upper=1.0)
        noise = 1 - float(model.alpha(pool_teacher_probs).double().mean())
    auc, paired = _auc(margin, right), _paired(guess[~right], y[~right], probs.shape[1])
    largest = np.bincount(y).max() / len(y)
    arm, reason = _choice(float(right.mean()), float(largest), auc, paired)
    rows = _by_margin(margin, right)
    return NoiseEvidence(len(y), float(right.mean()), auc, paired, rows, noise, arm, reason)


def _choice(accuracy: float, largest: float, auc: float, paired: float) -> tuple[Arm, str]:
    if accuracy <= largest:
        return "labels", (
            f"the teacher is right on {accuracy:.1%}, no more often than the most frequent class "
            f"({largest:.1%})"
        )
    if 1 - accuracy < _PERFECT:
        return "pseudo_label", f"the teacher errs on {1 - accuracy:.1%} only"
    if paired > _PAIRED:
        return "forward", f"{paired:.0%} of the errors are their class's most frequent confusion"
    if auc >= _TELLING:
        return "slam", f"the margin tells right from wrong (AUC {auc:.2f})"
    return "pseudo_label", f"neither class nor margin (AUC {auc:.2f}) tells where the teacher errs"


def _auc(margin: NDArray[Any], right: NDArray[Any]) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(right, margin)) if 0 < right.mean() < 1 else float("nan")


def _paired(guess: NDArray[Any], y: NDArray[Any], classes: int) -> float:
    """Share of the errors on the most frequent wrong label of each true class."""
    if classes == 2 or not len(y):
        return float("nan")
    counts = np.bincount(y * classes + guess, minlength=classes**2).reshape(classes, classes)
    return float(counts.max(1).sum() / len(y))


def _by_margin(margin: NDArray[Any], right: NDArray[Any]) -> tuple[tuple[float, int, float], ...]:
    order = np.argsort(margin, kind="stable")
    parts = np.array_split(order, min(_BINS, len(order)))
    return tuple((float(margin[p[0]]), len(p), float(right[p].mean())) for p in parts)
