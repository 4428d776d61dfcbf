"""Weights from gradients: against an exact solver, by their own certificate, at the edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

import limbeck.functional as F
from limbeck.errors import InputError


def problem(seed: int) -> tuple[np.ndarray, float]:
    """Gradients of 2 to 10 teachers: independent, parallel, opposed, equal, alike, badly scaled."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 11))
    gradients = rng.standard_normal((count, int(rng.integers(1, 20))))
    kind = seed % 7
    if kind == 1:
        gradients = gradients[:1] * rng.uniform(0.1, 3, (count, 1))
    elif kind == 2:
        gradients[1] = -gradients[0] * rng.uniform(0.1, 3)
    elif kind == 3:
        gradients[1] = gradients[0]
    elif kind == 4:
        gradients += 3
    elif kind == 5:
        gradients *= 10 ** rng.uniform(-4, 0, (count, 1))
    elif kind == 6:
        gradients *= 1e-8 * (rng.random((count, 1)) > 0.3)
    cap = [1 / count, 0.6, 1.0, float(rng.uniform(1 / count, 1))][rng.integers(4)]
    return gradients, max(cap, 1 / count)


def gap(gram: np.ndarray, weights: np.ndarray, cap: float) -> float:
    """How much lower the linearised objective gets within the constraints (Frank and Wolfe)."""
    slope = gram @ weights
    best, left = np.zeros(len(gram)), 1.0
    for place in np.argsort(slope):
        best[place] = min(cap, left)
        left -= best[place]
    return float(slope @ weights - slope @ best)


def test_a_thousand_problems_are_solved_exactly():
    for seed in range(1000):
        gradients, cap = problem(seed)
        gram = gradients @ gradients.T
        weights = F.min_norm_weights(gram, tolerance=cap)
        assert gap(gram, weights, cap) <= 1e-9 * np.trace(gram) / len(gram), seed
        assert abs(weights.sum() - 1) <= 1e-10
        assert weights.min() >= -1e-10
        assert weights.max() <= cap + 1e-10


@pytest.mark.parametrize("seed", [seed for seed in range(40) if seed % 7 not in (5, 6)])
def test_no_solver_finds_a_lower_objective(seed):
    gradients, cap = problem(seed)
    gram = gradients @ gradients.T
    count = len(gram)
    found = minimize(
        lambda alpha: 0.5 * alpha @ gram @ alpha,
        np.full(count, 1 / count),
        jac=lambda alpha: gram @ alpha,
        bounds=[(0, cap)] * count,
        constraints={"type": "eq", "fun": lambda alpha: alpha.sum() - 1},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    weights = F.min_norm_weights(gram, tolerance=cap)
    scale = np.trace(gram) / count
    assert 0.5 * weights @ gram @ weights == pytest.approx(found.fun, rel=1e-5, abs=1e-7 * scale)


@settings(deadline=None, max_examples=150)
@given(
    st.integers(2, 8).flatmap(
        lambda count: st.lists(
            st.lists(st.floats(-1, 1), min_size=count, max_size=count), min_size=1, max_size=6
        )
    ),
    st.floats(0, 1),
    st.integers(-8, 8),
)
def test_any_gram_has_weights_that_no_scale_changes(columns, position, exponent):
    gradients = np.array(columns).T
    count = len(gradients)
    cap = 1 / count + position * (1 - 1 / count)
    gram = gradients @ gradients.T
    weights = F.min_norm_weights(gram, tolerance=cap)
    assert gap(gram, weights, cap) <= 1e-9 * np.trace(gram) / count
    scaled = F.min_norm_weights(gram * 2.0**exponent, tolerance=cap)
    np.testing.assert_array_equal(scaled, weights)


def test_two_gradients_have_a_closed_form():
    """Opposed, g₂ = −3 g₁: the longer one gets the smaller weight, until the cap holds."""
    gram = torch.tensor([[1.0, -3.0], [-3.0, 9.0]])
    torch.testing.assert_close(F.min_norm_weights(gram, tolerance=1), torch.tensor([0.75, 0.25]))
    torch.testing.assert_close(F.min_norm_weights(gram, tolerance=0.6), torch.tensor([0.6, 0.4]))


@pytest.mark.parametrize("gram", [torch.zeros(3, 3), torch.ones(3, 3), torch.eye(3) * 1e-30])
def test_no_or_equal_gradients_weigh_the_same(gram):
    weights = F.min_norm_weights(gram, tolerance=0.9)
    torch.testing.assert_close(weights, torch.full((3,), 1 / 3))


def test_the_least_cap_is_the_plain_mean():
    gram = torch.diag(torch.tensor([1.0, 5.0, 9.0]))
    torch.testing.assert_close(F.min_norm_weights(gram, tolerance=1 / 3), torch.full((3,), 1 / 3))


def test_a_batch_of_problems_and_kinds():
    grams = torch.stack([torch.diag(torch.tensor([1.0, 3.0])), torch.eye(2)])
    weights = F.min_norm_weights(grams, tolerance=1.0)
    torch.testing.assert_close(weights, torch.tensor([[0.75, 0.25], [0.5, 0.5]]))
    array = F.min_norm_weights(grams.numpy(), tolerance=1.0)
    assert isinstance(array, np.ndarray)
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, weights.numpy())


def test_bad_input():
    with pytest.raises(InputError, match=r"tolerance 0\.2 with 4 teachers .* at least 0\.25"):
        F.min_norm_weights(torch.eye(4), tolerance=0.2)
    with pytest.raises(InputError, match=r"shape \(2, 3\)"):
        F.min_norm_weights(torch.ones(2, 3), tolerance=1)
    gram = torch.eye(3)
    gram[1] = gram[:, 1] = torch.nan
    with pytest.raises(InputError, match=r"teachers \[1\]"):
        F.min_norm_weights(gram, tolerance=1)
