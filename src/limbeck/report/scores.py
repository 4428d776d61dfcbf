"""What stored logits say: probabilities, calibration bins, accuracy class by class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from limbeck.report.reading import Array


def probabilities(logits: Array) -> Array:
    """Softmax over the last axis, in float64."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    exponentials = np.exp(shifted)
    return np.asarray(exponentials / exponentials.sum(-1, keepdims=True))


@dataclass(frozen=True)
class Bins:
    """Confidence bins that hold samples: mean confidence, accuracy and share of the samples."""

    confidence: Array
    accuracy: Array
    share: Array

    @property
    def ece(self) -> float:
        """Expected calibration error (Guo et al. 2017, equation 3)."""
        return float((self.share * np.abs(self.accuracy - self.confidence)).sum())


def reliability(logits: Array, labels: Array, bins: int = 15) -> Bins:
    """Accuracy by confidence in bins of equal width (Guo et al. 2017, section 2).

    Args:
        logits: (N, C).
        labels: (N,).
        bins: how many, over (0, 1].
    """
    chances = probabilities(logits)
    confidence, right = chances.max(-1), chances.argmax(-1) == labels
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    full = counts > 0

    def mean(values: Array) -> Array:
        return np.asarray(np.bincount(place, weights=values, minlength=bins)[full] / counts[full])

    return Bins(mean(confidence), mean(right), counts[full] / len(labels))


def scores(logits: Array, labels: Array) -> dict[str, float]:
    """Accuracy, NLL and ECE of logits (N, C) against labels (N,)."""
    chances = probabilities(logits)
    truth = chances[np.arange(len(labels)), labels]
    return {
        "accuracy": float((chances.argmax(-1) == labels).mean()),
        "nll": float(-np.log(np.maximum(truth, 1e-300)).mean()),
        "ece": reliability(logits, labels).ece,
    }


def class_accuracy(logits: Array, labels: Array, classes: int) -> Array:
    """Share of each class's samples that are right, (classes,); NaN for a class without samples."""
    right = (logits.argmax(-1) == labels).astype(float)
    hits = np.bincount(labels, weights=right, minlength=classes)
    totals = np.bincount(labels, minlength=classes).astype(float)
    shares = np.full(classes, np.nan)
    return np.asarray(np.divide(hits, totals, out=shares, where=totals > 0))
