"""The perceptron that mixes its own prediction, its bound, and what plain perceptrons do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from limbeck.errors import InputError
from limbeck.theory.halfspace import halfspace_bound, halfspace_sign, slam_perceptron


def streams(steps, *, margin, noise, runs=10, width=20, seed=0):
    """Streams that lie exactly at the margin of w* = (1, 0, ...): samples, truth and labels."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(runs, steps, width, generator=generator, dtype=torch.float64)
    truth = halfspace_sign(torch.randn(runs, steps, generator=generator, dtype=torch.float64))
    x[..., 0] = 0
    x = x * (1 - margin**2) ** 0.5 / x.norm(dim=-1, keepdim=True)
    x[..., 0] = margin * truth
    flipped = torch.rand(runs, steps, generator=generator) < noise
    return x, truth, torch.where(flipped, -truth, truth)


def mistakes(x, truth, y, beta):
    """Which samples the iterate before them gets wrong, [..., T]."""
    after = slam_perceptron(x, y, beta)
    before = torch.cat([torch.zeros_like(after[:, :1]), after[:, :-1]], 1)
    return halfspace_sign((before * x).sum(-1)) != truth


@pytest.mark.parametrize(("margin", "noise"), [(0.1, 0.0), (0.2, 0.2), (0.2, 0.4)])
def test_the_mean_error_is_within_the_bound(margin, noise):
    x, truth, y = streams(3000, margin=margin, noise=noise)
    wrong = mistakes(x, truth, y, 1 - 2 * noise)
    for steps in (1000, 3000):
        error = wrong[:, :steps].double().mean()
        assert error <= halfspace_bound(steps, beta=1 - 2 * noise, margin=margin)
        assert error > 0


def test_the_plain_perceptron_stays_at_the_noise():
    x, truth, y = streams(4000, margin=0.2, noise=0.2)
    plain = mistakes(x, truth, y, 1.0)[:, -400:].double().mean()
    assert plain == pytest.approx(0.2, abs=0.02)
    mixed = mistakes(x, truth, y, 0.6)[:, -400:].double().mean()
    assert mixed < 0.5 * plain


def test_without_noise_it_is_the_perceptron():
    x, truth, _ = streams(50, margin=0.3, noise=0.0, runs=1)
    w = np.zeros(20)
    for sample, label in zip(x[0].numpy(), truth[0].numpy(), strict=True):
        if (1 if w @ sample >= 0 else -1) != label:
            w = w + 2 * label * sample
    assert np.allclose(slam_perceptron(x, truth, 1.0)[0, -1].numpy(), w)


def test_a_stream_can_be_gone_on_with():
    x, _, y = streams(60, margin=0.2, noise=0.1, runs=2)
    whole = slam_perceptron(x, y, 0.8)
    half = slam_perceptron(x[:, :30], y[:, :30], 0.8)
    rest = slam_perceptron(x[:, 30:], y[:, 30:], 0.8, start=half[:, -1])
    assert torch.equal(torch.cat([half, rest], 1), whole)


def test_the_bound_solves_its_quadratic():
    beta, margin, steps = 0.6, 0.1, 5000
    e = halfspace_bound(steps, beta=beta, margin=margin)
    left, right = 2 * beta * margin * steps * e, (steps * (1 - beta**2 + 4 * beta**2 * e)) ** 0.5
    assert left == pytest.approx(right)
    assert halfspace_bound(400, beta=1, margin=0.1) == pytest.approx(1 / (0.01 * 400))


def test_what_is_refused():
    x, _, y = streams(5, margin=0.2, noise=0.1, runs=1)
    with pytest.raises(InputError, match=r"beta must lie in \(0, 1\]"):
        slam_perceptron(x, y, 0.0)
    with pytest.raises(InputError, match="x has shape"):
        slam_perceptron(x, y[:, :3], 0.5)
    with pytest.raises(InputError, match="margin 0"):
        halfspace_bound(5, beta=0.5, margin=0.0)
