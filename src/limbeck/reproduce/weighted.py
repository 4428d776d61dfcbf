"""Weighted distillation (Iliopoulos et al., NeurIPS 2022) on AG News, Fashion-MNIST and Adult.

Students learn from a pool alone that a teacher labels with mistakes, with and without weights; and
the weights' promise, that the loss keeps its value, is checked exactly and for estimated weights.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from limbeck.data.random import derive
from limbeck.functional import debias_weights, estimate_weights
from limbeck.functional.debias import Variant
from limbeck.reproduce.claims import Claim, Evidence, Scale, at_most, figure, part
from limbeck.reproduce.noisy_pool import (
    Case,
    Gains,
    accuracies,
    bounded,
    gain_claim,
    plant,
    run_cases,
)
from limbeck.reproduce.parallel import one_thread

NAME = "weighted"
SEEDS = 5
_BOTH, _SOFT = ("plain", "weighted"), ("plain_soft", "weighted_soft")
CASES = {
    "agnews-step": Case("agnews", "step", ("labels", *_BOTH)),
    "agnews-net": Case("agnews", "net", _BOTH),
    "fashion-step": Case("fashion", "step", ("labels", *_BOTH), epochs=40),
    "adult-tree": Case("adult", "tree", _BOTH),
}
FULL_CASES = {
    "agnews-step-soft": Case("agnews", "step", _SOFT),
    "fashion-margin": Case("fashion", "margin", _BOTH, epochs=40),
    "fashion-margin-short": Case("fashion", "margin", (*_BOTH, *_SOFT)),
    "agnews-margin": Case("agnews", "margin", _BOTH),
    "agnews-cls": Case("agnews", "cls", (*_BOTH, *_SOFT)),
}


def measure(scale: Scale) -> Evidence:
    """Check the weights, then train every arm."""
    one_thread()
    claims = [*identity_claims(), *value_claims(scale)]
    cases = CASES | (FULL_CASES if scale.full else {})
    found = run_cases(cases, scale.seeds or SEEDS, scale)
    claims += accuracy_claims(found)
    return Evidence(NAME, claims + (full_claims(found) if scale.full else []))


def accuracy_claims(found: Mapping[str, Gains]) -> list[Claim]:
    """Accuracies, and gains over plain pseudo-labels."""

    def gain(name: str) -> list[float]:
        return found[name].over("weighted", "plain")

    return [
        *accuracies(found),
        gain_claim("agnews-step, hard: weighted over plain", gain("agnews-step"), 0.6),
        gain_claim("fashion-step, hard: weighted over plain", gain("fashion-step"), 0.35),
        *(
            bounded(
                f"{name}, nothing to learn: weighted over plain",
                statistics.fmean(gain(name)),
                -0.2,
                0.2,
            )
            for name in ("agnews-net", "adult-tree")
        ),
    ]


def full_claims(found: Mapping[str, Gains]) -> list[Claim]:
    """The settings that are only run in full."""
    soft = ("weighted_soft", "plain_soft")
    short = found["fashion-margin-short"]
    margin, cls = found["agnews-margin"].over("weighted", "plain"), found["agnews-cls"]
    return [
        gain_claim("agnews-step, soft", found["agnews-step-soft"].over(*soft), 0.2),
        gain_claim("fashion-margin", found["fashion-margin"].over("weighted", "plain"), 0.2),
        gain_claim("fashion-margin, half as long", short.over("weighted", "plain"), 0.2),
        gain_claim("fashion-margin, half as long, soft", short.over(*soft), 0.2),
        gain_claim("agnews-margin", margin, 0.1, share=0.6),
        figure("agnews-cls, hard: weighted over plain", cls.over("weighted", "plain")),
        figure("agnews-cls, soft: weighted over plain", cls.over(*soft)),
    ]


def identity_claims(samples: int = 400, classes: int = 5, draws: int = 20_000) -> list[Claim]:
    """With the true p and distortion the weighted loss is unbiased, one by one and in draws."""
    rng = np.random.default_rng(0)
    y, p = rng.integers(classes, size=samples), rng.uniform(0, 0.6, samples)
    student = _simulated(y, classes, rng)
    wrong = rng.dirichlet(np.ones(classes), samples)
    wrong[np.arange(samples), y] = 0
    wrong /= wrong.sum(1, keepdims=True)
    loss = -np.log(student)
    true = loss[np.arange(samples), y]
    weights = debias_weights(_tensor(p), _tensor((wrong * loss).sum(1) / true)).numpy()
    chances = p[:, None] * wrong
    chances[np.arange(samples), y] = 1 - p
    expected = weights * (chances * loss).sum(1)
    labels = (rng.random((draws, samples, 1)) > chances.cumsum(1)).sum(2).clip(max=classes - 1)
    drawn = loss[np.arange(samples), labels]
    means = (weights * drawn).mean(1)
    off = float(abs(expected - true).max())
    errors = float(abs(means.mean() - true.mean()) / (means.std() / draws**0.5))
    excess = float(drawn.mean() / true.mean() - 1)
    return [
        at_most("expected weighted loss off the true one", [off], 1e-12),
        at_most("weighted loss over 20,000 draws, off in standard errors", [errors], 4.0),
        bounded("unweighted loss over the true one, excess", excess, 0.5, math.inf),
    ]


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values)


SIZES = (100, 300, 1_000)
VARIANTS: tuple[Variant, ...] = ("ratio", "mean", "separate")


def value_claims(scale: Scale) -> list[Claim]:
    """By how much the weighted loss on pseudo-labels exceeds the loss on true labels, in %."""
    claims = []
    for error in (0.05, 0.1, 0.2, 0.3):
        found = {size: _excesses(size, error, part(30, scale.share)) for size in SIZES}
        name = f"error {error:.0%}"
        plain, ratio = found[1_000]["plain"], [found[size]["ratio"] for size in SIZES]
        claims += [
            figure(f"{name}: excess of the unweighted loss, %", [plain]),
            at_most(f"{name}: excess with weights, 1,000 validation samples, %", ratio[-1:], 20.0),
            at_most(f"{name}: the same over the unweighted", [ratio[-1] / plain], 1 / 3),
            bounded(
                f"{name}: falls with the validation samples (1)",
                float(ratio[0] > ratio[1] > ratio[2]),
                1.0,
                1.0,
            ),
            *(
                figure(f"{name}: excess by the reading {variant!r}, %", [found[1_000][variant]])
                for variant in VARIANTS[1:]
            ),
        ]
        scale.report(f"value bias, {name}: {plain:.0f} % to {ratio[-1]:.0f} %")
    return claims


def _excesses(size: int, error: float, draws: int) -> dict[str, float]:
    drawn = [_excess(size, error, seed) for seed in range(draws)]
    return {key: statistics.fmean(one[key] for one in drawn) for key in drawn[0]}


def _excess(size: int, error: float, seed: int, classes: int = 10) -> dict[str, float]:
    """Excess of the mean loss on 3,000 pseudo-labels in %, plain and with each reading."""
    rng = np.random.default_rng(derive(seed, "value", size))
    y = rng.integers(classes, size=size + 3_000)
    teacher = _tensor(plant(y, classes, error, "margin", rng))
    student = _tensor(_simulated(y, classes, rng))
    target = _tensor(y)
    log_f = -student[size:].log()
    label = log_f.gather(1, teacher[size:].argmax(1, keepdim=True)).squeeze(1)
    true = log_f.gather(1, target[size:, None]).mean()
    found = {"plain": label.mean() / true}
    for variant in VARIANTS:
        weights = estimate_weights(
            student[:size],
            teacher[:size],
            target[:size],
            student[size:],
            teacher[size:],
            variant=variant,
            cap=None,
            rescale=False,
        )
        found[variant] = (weights * label).mean() / true
    return {key: 100 * (value.item() - 1) for key, value in found.items()}


def _simulated(y: np.ndarray, classes: int, rng: np.random.Generator) -> np.ndarray:
    """Probabilities of a student that is right on about 85 % of the samples."""
    logits = rng.normal(size=(len(y), classes))
    logits[np.arange(len(y)), y] += 3.0
    chances = np.exp(logits)
    return np.asarray(chances / chances.sum(1, keepdims=True))
