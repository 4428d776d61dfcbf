"""What is read off a validation set: accuracy by margin, class ratios, evidence."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import limbeck.functional as F
from limbeck.errors import InputError
from limbeck.functional.label_shift import effective_size


def planted(count, *, error=0.2, classes=5, seed=0):
    """Probabilities, truth and true accuracy of a teacher that errs more at small margins."""
    rng = np.random.default_rng(seed)
    margin = rng.beta(2, 1.2, count)
    alpha = 1 - np.minimum(error * (1 - margin) / (1 - margin).mean(), 0.49)
    guess = rng.integers(classes, size=count)
    wrong = rng.random(count) > alpha
    y = np.where(wrong, (guess + 1 + rng.integers(classes - 1, size=count)) % classes, guess)
    low = (1 - margin) / classes
    probs = np.tile(low[:, None], classes)
    probs[np.arange(count), guess] += margin
    return torch.from_numpy(probs), torch.from_numpy(y), torch.from_numpy(alpha)


@pytest.mark.parametrize("curve", ["isotonic", "logistic"])
def test_alpha_is_found_again(curve):
    probs, y, _ = planted(2000)
    pool, _, alpha = planted(3000, seed=1)
    model = F.calibrate_noise(probs, y, curve=curve, lower=0.0, upper=1.0)
    assert (model.alpha(pool) - alpha).square().mean().sqrt() < 0.04
    constant = F.calibrate_noise(probs, y, curve="constant", lower=0.0, upper=1.0)
    assert (constant.alpha(pool) - alpha).square().mean().sqrt() > 0.08


def test_auto_takes_the_curve_that_the_samples_allow():
    probs, y, _ = planted(400)
    assert F.calibrate_noise(probs[:299], y[:299]).curve == "logistic"
    assert F.calibrate_noise(probs[:300], y[:300]).curve == "isotonic"


@pytest.mark.parametrize("curve", ["isotonic", "logistic", "constant"])
def test_alpha_is_bounded_and_grows_with_the_margin(curve):
    probs, y, _ = planted(200, error=0.3)
    model = F.calibrate_noise(probs, y, curve=curve)
    margin = probs.topk(2).values
    alpha = model.alpha(probs)[(margin[:, 0] - margin[:, 1]).argsort()]
    assert (alpha.diff() >= 0).all()
    assert alpha.min() >= 0.5
    assert alpha.max() <= 1 - 1 / 202


def test_a_margin_that_misleads_gives_one_number():
    probs, y, _ = planted(200)
    right = probs.argmax(1) == y
    order = probs.max(1).values.argsort()
    worst = torch.zeros(200, dtype=torch.bool)
    worst[order[: int(right.sum())]] = True  # right where the margin is small
    y = torch.where(worst, probs.argmax(1), (probs.argmax(1) + 1) % 5)
    model = F.calibrate_noise(probs, y, curve="logistic")
    assert len(model.by_margin.x) == 1


def test_weights_count_as_repeated_samples():
    probs, y, _ = planted(300)
    count = torch.randint(1, 4, (300,), generator=torch.Generator().manual_seed(0))
    many = probs.repeat_interleave(count, 0), y.repeat_interleave(count)
    twice = F.calibrate_noise(*many, upper=0.95)
    once = F.calibrate_noise(probs, y, sample_weight=count, upper=0.95)
    pool, _, _ = planted(100, seed=1)
    torch.testing.assert_close(once.alpha(pool), twice.alpha(pool))
    assert torch.equal(once.k(pool), twice.k(pool))


def test_type_and_device_of_the_answer_are_the_question_s():
    probs, y, _ = planted(150)
    model = F.calibrate_noise(probs, y)
    assert model.alpha(probs.float()).dtype == torch.float32
    assert model.k(probs.float()).dtype == torch.int64


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p, y: (5 * p, y), r"not a distribution \(row sums 5 to 5\)"),
        (lambda p, y: (p[:, 0], y), r"probabilities have shape \(150,\)"),
        (lambda p, y: (p, y[:3]), r"target has shape \(3,\)"),
        (lambda p, y: (p.index_fill(0, torch.tensor([7]), torch.nan), y), "sample 7 are not fin"),
    ],
)
def test_what_calibration_refuses(change, words):
    probs, y, _ = planted(150)
    with pytest.raises(InputError, match=words):
        F.calibrate_noise(*change(probs, y))


def test_unknown_curves_are_refused():
    probs, y, _ = planted(150)
    with pytest.raises(InputError, match="curve is 'spline'"):
        F.calibrate_noise(probs, y, curve="spline")


PRIORS = np.array([0.5, 0.25, 0.15, 0.07, 0.03])
RATES = np.array([0.02, 0.1, 0.2, 0.3, 0.4])


def skewed(count, priors, rng):
    """A teacher whose error depends on the true class, on samples with these class frequencies."""
    y = np.repeat(np.arange(5), np.round(count * priors).astype(int))
    count = len(y)
    wrong = rng.random(count) < RATES[y]
    guess = np.where(wrong, (y + 1) % 5, y)
    margin = rng.beta(2, 1.2, count)
    probs = np.tile(((1 - margin) / 5)[:, None], 5)
    probs[np.arange(count), guess] += margin
    return torch.from_numpy(probs), torch.from_numpy(y)


def test_a_shift_of_the_classes_is_found_and_mended():
    biases = {True: [], False: []}
    for seed in range(10):
        rng = np.random.default_rng(seed)
        probs, y = skewed(500, np.full(5, 0.2), rng)
        pool, truth = skewed(6000, PRIORS, rng)
        shift = F.label_shift(probs, y, pool)
        assert shift.found
        weight = shift.sample_weight(y)
        assert weight is not None
        assert (shift.ratios / 5 - torch.from_numpy(PRIORS)).abs().max() < 0.05
        assert 150 < effective_size(weight) < 450
        accuracy = (pool.argmax(1) == truth).double().mean()
        for weighted in biases:
            options = {"sample_weight": weight} if weighted else {}
            model = F.calibrate_noise(probs, y, lower=0.0, upper=1.0, **options)
            biases[weighted].append(float(model.alpha(pool).mean() - accuracy))
    assert abs(np.mean(biases[True])) <= 0.03
    assert abs(np.mean(biases[False])) >= 0.07


def test_no_shift_is_found_where_there_is_none():
    rng = np.random.default_rng(0)
    probs, y = skewed(500, PRIORS, rng)
    shift = F.label_shift(probs, y, skewed(6000, PRIORS, rng)[0])
    assert not shift.found
    assert shift.sample_weight(y) is None


def test_ratios_that_cannot_be_told_are_not_guessed():
    probs, y = skewed(500, np.full(5, 0.2), np.random.default_rng(0))
    blind = probs[torch.zeros(500, dtype=torch.int64)]  # it always says the same
    pool = skewed(6000, PRIORS, np.random.default_rng(1))[0]
    shift = F.label_shift(blind, y, pool)
    assert shift.found
    assert shift.ratios is None
    assert shift.sample_weight(y) is None


def test_evidence_names_the_arm():
    probs, y, _ = planted(1000)
    found = F.noise_evidence(probs, y, planted(3000, seed=1)[0])
    assert found.arm == "slam"
    assert found.accuracy == pytest.approx(0.8, abs=0.04)
    assert found.expected_noise == pytest.approx(0.2, abs=0.04)
    assert sum(count for _, count, _ in found.by_margin) == 1000
    assert found.by_margin[0][2] < found.by_margin[-1][2]
    assert found.as_json()["arm"] == "slam"

    perfect = F.noise_evidence(probs, probs.argmax(1))
    assert (perfect.arm, perfect.accuracy) == ("pseudo_label", 1.0)
    assert np.isnan(perfect.auc)

    next_class = torch.where(probs.argmax(1) == y, y, (probs.argmax(1) + 1) % 5)
    assert F.noise_evidence(probs, next_class).arm == "forward"

    useless = F.noise_evidence(probs, torch.zeros(1000, dtype=torch.int64))
    assert useless.arm == "labels"


def test_two_classes_have_no_pairs():
    rng = np.random.default_rng(0)
    probs = torch.from_numpy(rng.dirichlet([1, 1], 300))
    y = torch.where(torch.from_numpy(rng.random(300)) < 0.2, probs.argmin(1), probs.argmax(1))
    found = F.noise_evidence(probs, y)
    assert found.arm == "pseudo_label"
    assert np.isnan(found.paired)
