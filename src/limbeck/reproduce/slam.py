"""SLaM (Kontonis et al., NeurIPS 2023) on AG News, Fashion-MNIST and CIFAR-10, and its theory.

Students learn from a pool alone that a teacher labels with mistakes, by plain pseudo-labels and by
mixed predictions; the estimate of the teacher's accuracy is compared with planted ones; and the
perceptron that mixes its own prediction runs on streams with a margin and noisy labels.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from limbeck.data.random import derive, generator
from limbeck.errors import InputError
from limbeck.functional import calibrate_noise, label_shift
from limbeck.reproduce.claims import Claim, Evidence, Scale, at_most, figure, part
from limbeck.reproduce.noisy_pool import (
    Case,
    Gains,
    accuracies,
    bounded,
    error_rate,
    gain_claim,
    plant,
    run_cases,
    train_arm,
)
from limbeck.reproduce.parallel import one_thread
from limbeck.theory import halfspace_bound, slam_perceptron
from limbeck.theory.halfspace import halfspace_sign

NAME = "slam"
SEEDS, WEAK_SEEDS = 5, 3
PAPER = (
    "other data: CIFAR-10, teacher on 1 % / 5 % of the labels: plain 11.75 / 54.2 %, the noise-"
    "robust baselines 10.0 to 12.74 / 54.32 to 56.21 %"
)
_STEP_ARMS = ("labels", "plain", "slam", "slam_constant", "taylor", "forward")
CASES = {
    "agnews-step": Case("agnews", "step", (*_STEP_ARMS, "plain_soft", "slam_soft_constant")),
    "agnews-net": Case("agnews", "net", ("labels", "plain", "slam", "plain_soft", "slam_soft_k")),
    "fashion-margin": Case("fashion", "margin", ("labels", "plain", "slam"), epochs=40),
    "fashion-step": Case("fashion", "step", ("plain", "slam"), epochs=40),
}
WEAK = Case("cifar", "tree3000", ("plain", "slam_normalized"))
"""A teacher that is right on a fifth of the samples."""
WEAK_CASES = {"cifar-tree": WEAK, "cifar-tree-long": replace(WEAK, epochs=40)}

_BOTH = ("plain", "slam")
FULL_CASES = {
    **{f"agnews-margin-v{size}": Case("agnews", "margin", _BOTH, val=size) for size in (100, 300)},
    "agnews-margin": Case(
        "agnews", "margin", (*_BOTH, "plain_soft", "slam_soft", "slam_soft_constant")
    ),
    "agnews-margin-5": Case("agnews", "margin", _BOTH, error=0.05, pool=8_000),
    "agnews-margin-30": Case("agnews", "margin", _BOTH, error=0.3),
    "agnews-cls": Case("agnews", "cls", ("plain", "slam", "forward")),
    "fashion-net": Case("fashion", "net", ("plain", "slam", "slam_constant"), epochs=40),
    "adult-tree": Case("adult", "tree", _BOTH),
}


def measure(scale: Scale) -> Evidence:
    """Train every arm, and check the estimators and the theory."""
    one_thread()
    seeds = scale.seeds or SEEDS
    claims = [*estimator_claims(scale.share), *shift_claims(scale.share)]
    claims += halfspace_claims(scale)
    found = run_cases(CASES | (FULL_CASES if scale.full else {}), seeds, scale)
    claims += accuracy_claims(found)
    if scale.full:
        claims += full_claims(found)
    weak = run_cases(WEAK_CASES, min(seeds, WEAK_SEEDS), scale)
    return Evidence(NAME, [*claims, *weak_claims(weak, scale)])


def accuracy_claims(found: Mapping[str, Gains]) -> list[Claim]:
    """Accuracies, and gains over plain pseudo-labels."""
    step, net = found["agnews-step"], found["agnews-net"]
    fashion = found["fashion-margin"], found["fashion-step"]
    extra = step.over("slam", "slam_constant")
    return [
        *accuracies(found),
        gain_claim("agnews-step, hard: slam over plain", step.over("slam", "plain"), 1.0, PAPER),
        bounded(
            "agnews-step, hard: slam over one α for all", statistics.fmean(extra), 0.1, math.inf
        ),
        gain_claim(
            "agnews-step, soft: slam with one α over plain",
            step.over("slam_soft_constant", "plain_soft"),
            0.4,
        ),
        gain_claim("agnews-net, hard: slam over plain", net.over("slam", "plain"), 0.8),
        gain_claim(
            "agnews-net, soft: slam with k(x) over plain",
            net.over("slam_soft_k", "plain_soft"),
            1.2,
        ),
        gain_claim("fashion-margin, hard: slam over plain", fashion[0].over("slam", "plain"), 0.15),
        gain_claim("fashion-step, hard: slam over plain", fashion[1].over("slam", "plain"), 0.15),
    ]


def full_claims(found: Mapping[str, Gains]) -> list[Claim]:
    """The settings that are only run in full."""
    margin = found["agnews-margin"]
    gains = {name: gain.over("slam", "plain") for name, gain in found.items()}
    rise = statistics.fmean(gains["agnews-margin-30"]) - statistics.fmean(gains["agnews-margin-5"])
    return [
        *(
            gain_claim(f"{name}, hard: slam over plain", gains[name], 0.6)
            for name in ("agnews-margin", "agnews-margin-v300", "agnews-margin-v100")
        ),
        gain_claim(
            "agnews-margin, soft: slam with one α over plain",
            margin.over("slam_soft_constant", "plain_soft"),
            0.4,
        ),
        gain_claim(
            "agnews-margin, soft: slam over plain", margin.over("slam_soft", "plain_soft"), 0.15
        ),
        bounded("agnews: gain at 30 % error over that at 5 %", rise, 0.0, math.inf),
        *(figure(f"{name}: slam over plain", gains[name]) for name in ("agnews-cls", "adult-tree")),
        figure("fashion-net: slam over plain", gains["fashion-net"]),
    ]


def weak_claims(found: Mapping[str, Gains], scale: Scale) -> list[Claim]:
    """A teacher below one half: plain mixing is refused, the normalized form does no harm."""
    gain, longer = (found[name].over("slam_normalized", "plain") for name in WEAK_CASES)
    try:
        train_arm(WEAK.scaled(scale.share), "slam", 0, scale.out / "refused")
        refused = 0.0
    except InputError:
        refused = 1.0
    return [
        *accuracies(found),
        bounded("cifar-tree: plain mixing is refused (1)", refused, 1.0, 1.0),
        bounded("cifar-tree: normalized slam over plain", statistics.fmean(gain), -0.3, math.inf),
        figure("cifar-tree-long, twice the epochs: normalized slam over plain", longer),
    ]


RMSE_LINES = {100: 0.12, 300: 0.075, 1000: 0.055}
"""Root mean square error of α by validation samples."""


def estimator_claims(share: float) -> list[Claim]:
    """The isotonic estimate of α against the planted one, for four rates of error."""
    claims = []
    biases = []
    for size, line in RMSE_LINES.items():
        worst = []
        for error in (0.05, 0.1, 0.2, 0.3):
            drawn = [_alpha_error(size, error, seed) for seed in range(part(30, share))]
            worst.append(statistics.fmean(rmse for rmse, _ in drawn))
            biases.append(abs(statistics.fmean(bias for _, bias in drawn)))
        claims.append(at_most(f"error of α, {size} validation samples, worst rate", worst, line))
    return [*claims, at_most("bias of α, largest of all settings", biases, 0.02)]


def _alpha_error(size: int, error: float, seed: int, classes: int = 10) -> tuple[float, float]:
    """Root mean square error and bias of α on 3,000 samples."""
    rng = np.random.default_rng(derive(seed, "alpha", size))
    y = rng.integers(classes, size=size + 3_000)
    probs = plant(y, classes, error, "margin", rng)
    top = np.sort(probs, 1)
    rate = error_rate(top[:, -1] - top[:, -2], y, classes, error, "margin")
    values, target = torch.from_numpy(probs), torch.from_numpy(y)
    model = calibrate_noise(values[:size], target[:size], curve="isotonic", lower=0.0, upper=1.0)
    off = model.alpha(values[size:]) - torch.from_numpy(1 - rate[size:])
    return off.square().mean().sqrt().item(), off.mean().item()


PRIORS = np.array([0.5, 0.25, 0.15, 0.07, 0.03])
ERRORS = np.array([0.02, 0.1, 0.2, 0.3, 0.4])
"""Of five classes: their shares of the pool, and how often the teacher errs on each."""


def shift_claims(share: float) -> list[Claim]:
    """As many validation samples of every class, a skewed pool: α with and without correction."""
    biases = [_shift_biases(seed) for seed in range(part(40, share))]
    plain, weighted = (abs(statistics.fmean(column)) for column in zip(*biases, strict=True))
    return [
        bounded("bias of mean α under label shift, uncorrected", plain, 0.07, 1.0),
        bounded("bias of mean α under label shift, corrected", weighted, 0.0, 0.03),
    ]


def _shift_biases(seed: int) -> tuple[float, float]:
    rng = np.random.default_rng(derive(seed, "label shift"))
    probs, y = _skewed(np.repeat(np.arange(5), 100), rng)
    pool, truth = _skewed(rng.choice(5, size=6_000, p=PRIORS), rng)
    accuracy = (pool.argmax(1) == truth).double().mean()
    weight = label_shift(probs, y, pool).sample_weight(y)
    found = []
    for given in (None, weight):
        model = calibrate_noise(
            probs, y, curve="isotonic", lower=0.0, upper=1.0, sample_weight=given
        )
        found.append((model.alpha(pool).mean() - accuracy).item())
    return found[0], found[1]


def _skewed(y: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Probabilities and truth of samples of these classes; errors are blind to the margin."""
    guess = np.where(rng.random(len(y)) < ERRORS[y], (y + 1) % 5, y)
    return torch.from_numpy(plant(guess, 5, 0.0, "margin", rng)), torch.from_numpy(y)


CELLS = ((0.1, 0.0), (0.1, 0.1), (0.1, 0.2), (0.1, 0.3), (0.2, 0.2), (0.2, 0.4))
"""Margin and rate of flipped labels of each stream."""
STEPS, RUNS, WIDTH = 30_000, 20, 50


def halfspace_claims(scale: Scale) -> list[Claim]:
    """Running mistake rates against the bound, their slopes, and what plain perceptrons do."""
    steps = max(300, part(STEPS, scale.share))
    marks = [steps // 30, steps // 10, steps // 3, steps]
    claims = []
    for margin, noise in CELLS:
        beta, name = 1 - 2 * noise, f"margin {margin:g}, noise {noise:g}"
        wrong = halfspace_mistakes(margin, noise, beta, steps)
        error = {mark: wrong[:mark].mean().item() for mark in marks}
        shares = [error[mark] / halfspace_bound(mark, beta=beta, margin=margin) for mark in marks]
        claims.append(at_most(f"halfspace, {name}: error over its bound", shares, 1.0))
        slope = math.log(max(error[steps], 1e-9) / error[marks[1]]) / math.log(steps / marks[1])
        limits = (-0.6, -0.35) if noise else (-math.inf, -0.9)
        claims.append(bounded(f"halfspace, {name}: slope of the error", slope, *limits))
        scale.report(f"halfspace, {name}: mean error {error[steps]:.4f}")
        if noise:
            late = wrong[-steps // 10 :].mean().item() / error[steps]
            claims.append(bounded(f"halfspace, {name}: late over mean error", late, 0.0, 0.75))
            plain = halfspace_mistakes(margin, noise, 1.0, steps)[-steps // 10 :].mean().item()
            off = abs(plain - noise)
            claims.append(bounded(f"halfspace, {name}: perceptron off the noise", off, 0.0, 0.01))
    return claims


def halfspace_mistakes(margin: float, noise: float, beta: float, steps: int) -> Tensor:
    """Mean over the runs of whether the perceptron errs, [T]; samples come in pieces."""
    made = generator(0, "halfspace", str(margin), str(noise))
    w, mistakes = torch.zeros(RUNS, WIDTH), []
    for start in range(0, steps, 3_000):
        count = min(3_000, steps - start)
        x, truth, y = _stream(margin, noise, count, made)
        after = slam_perceptron(x, y, beta, start=w)
        before = torch.cat([w[:, None], after[:, :-1]], 1)
        mistakes.append((halfspace_sign((before * x).sum(-1)) != truth).float().mean(0))
        w = after[:, -1]
    return torch.cat(mistakes)


def _stream(
    margin: float, noise: float, steps: int, made: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Samples at the margin of the first axis, their true signs, and noisy labels."""
    x = torch.randn(RUNS, steps, WIDTH, generator=made)
    x[..., 0] = 0
    x = x * (1 - margin**2) ** 0.5 / x.norm(dim=-1, keepdim=True)
    truth = halfspace_sign(torch.rand(RUNS, steps, generator=made) - 0.5)
    x[..., 0] = margin * truth
    flipped = torch.rand(RUNS, steps, generator=made) < noise
    return x, truth, torch.where(flipped, -truth, truth)
