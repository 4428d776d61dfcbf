"""Calibration and class-wise accuracy, on logits small enough to check by hand."""

from __future__ import annotations

import numpy as np
import pytest

from limbeck.report.scores import class_accuracy, probabilities, reliability, scores


def _logits(*rows):
    return np.log(np.asarray(rows, dtype=np.float64))


LOGITS = _logits([0.9, 0.1], [0.7, 0.3], [0.35, 0.65], [0.95, 0.05])
LABELS = np.array([0, 1, 1, 1])


def test_probabilities_survive_huge_logits():
    assert probabilities(np.array([[1e4, 0.0]])).tolist() == [[1.0, 0.0]]


def test_bins_hold_confidence_and_accuracy():
    bins = reliability(LOGITS, LABELS, bins=5)
    # (0.6, 0.8]: 0.7 wrong and 0.65 right; (0.8, 1]: 0.9 right and 0.95 wrong.
    assert bins.confidence == pytest.approx([0.675, 0.925])
    assert bins.accuracy == pytest.approx([0.5, 0.5])
    assert bins.share == pytest.approx([0.5, 0.5])
    assert bins.ece == pytest.approx(0.5 * 0.175 + 0.5 * 0.425)


def test_scores():
    found = scores(LOGITS, LABELS)
    assert found["accuracy"] == 0.5
    assert found["nll"] == pytest.approx(-np.log([0.9, 0.3, 0.65, 0.05]).mean())


def test_class_accuracy_knows_nothing_of_absent_classes():
    found = class_accuracy(LOGITS, LABELS, 3)
    assert found[:2] == pytest.approx([1.0, 1 / 3])
    assert np.isnan(found[2])
