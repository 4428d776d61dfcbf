"""Weights that keep the loss's value, and how they are estimated."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import limbeck.functional as F
from limbeck.errors import InputError
from limbeck.functional.debias import nearest


@given(st.floats(0, 1), st.floats(0.01, 100), st.floats(0.01, 10))
@settings(max_examples=50, deadline=None)
def test_the_weighted_loss_is_the_true_one_on_average(p, distortion, loss):
    weight = float(F.debias_weights(torch.tensor(p).double(), torch.tensor(distortion).double()))
    assert weight * ((1 - p) * loss + p * distortion * loss) == pytest.approx(loss)


@given(st.integers(0, 2**32), st.integers(1, 12), st.sampled_from([1, 4, 128]))
@settings(max_examples=40, deadline=None)
def test_nearest_is_that_of_a_stable_sort(seed, k, grid):
    """On a coarse grid most distances tie, and the first of equal points must be taken."""
    rng = np.random.default_rng(seed)
    points, queries = (rng.integers(grid, size=(n, 2)) / grid for n in (40, 15))
    squares = ((queries[:, None] - points) ** 2).sum(-1)
    expected = squares.argsort(1, kind="stable")[:, :k]
    assert np.array_equal(nearest(points, queries, k), expected)


def simulated(count, rng, *, error=0.2, classes=10):
    """Truth, a teacher that errs more at small margins, and a student that is right more often."""
    y = rng.integers(classes, size=count)
    margin = rng.beta(2, 1.2, count)
    wrong = rng.random(count) < np.minimum(error * (1 - margin) / (1 - margin).mean(), 0.49)
    guess = np.where(wrong, (y + 1 + rng.integers(4, size=count)) % classes, y)
    teacher = np.tile(((1 - margin) / classes)[:, None], classes)
    teacher[np.arange(count), guess] += margin
    logits = rng.normal(size=(count, classes))
    logits[np.arange(count), y] += 3
    student = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return [torch.from_numpy(values) for values in (student, teacher, y)]


def excess(variant, size, draws=6):
    """Weighted over true mean loss on the pool, minus 1; and that without weights."""
    found = []
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        validation, (student, teacher, y) = simulated(size, rng), simulated(3000, rng)
        weights = F.estimate_weights(
            *validation, student, teacher, variant=variant, cap=None, rescale=False
        )
        label = -student.gather(1, teacher.argmax(1, keepdim=True)).log().squeeze(1)
        true = -student.gather(1, y[:, None]).log().mean()
        found.append([float((weights * label).mean() / true - 1), float(label.mean() / true - 1)])
    return np.mean(found, 0)


def test_ratio_and_mean_remove_the_bias_that_separate_means_leave():
    ratio, plain = excess("ratio", 1000)
    assert plain > 0.5
    assert abs(ratio) < 0.2
    assert abs(excess("mean", 1000)[0]) < 0.2
    assert excess("separate", 1000)[0] > 0.25 * plain
    assert abs(ratio) < abs(excess("ratio", 100)[0])


@pytest.mark.parametrize("variant", ["ratio", "mean", "separate"])
@pytest.mark.parametrize("hard", [True, False])
def test_a_teacher_without_error_gets_equal_weights(variant, hard):
    student, teacher, _ = simulated(300, np.random.default_rng(0))
    pool = simulated(50, np.random.default_rng(1))
    weights = F.estimate_weights(
        student, teacher, teacher.argmax(1), *pool[:2], variant=variant, hard=hard
    )
    torch.testing.assert_close(weights, torch.ones(50, dtype=torch.float64))


def test_weights_are_capped_then_rescaled():
    rng = np.random.default_rng(0)
    validation, pool = simulated(300, rng), simulated(200, rng)
    raw = F.estimate_weights(*validation, *pool[:2], rescale=False)
    assert raw.max() == 1
    assert raw.min() >= 0
    scaled = F.estimate_weights(*validation, *pool[:2])
    torch.testing.assert_close(scaled, raw / raw.mean())


def test_a_sample_weight_counts_as_repetition():
    rng = np.random.default_rng(0)
    (student, teacher, y), pool = simulated(60, rng), simulated(20, rng)
    doubled = [values.repeat_interleave(2, 0) for values in (student, teacher, y)]
    once = F.estimate_weights(student, teacher, y, *pool[:2], k=5)
    twice = F.estimate_weights(*doubled, *pool[:2], k=10, sample_weight=torch.ones(120))
    torch.testing.assert_close(once, twice, rtol=2e-3, atol=2e-3)  # but for the floor of the sums


def test_what_estimation_refuses():
    student, teacher, y = simulated(30, np.random.default_rng(0))
    with pytest.raises(InputError, match=r"target \(29,\): \[V, C\] twice and \[V\]"):
        F.estimate_weights(student, teacher, y[:29], student, teacher)
    with pytest.raises(InputError, match="variant is 'A'"):
        F.estimate_weights(student, teacher, y, student, teacher, variant="A")
