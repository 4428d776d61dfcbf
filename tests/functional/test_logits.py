"""Losses on logits against their formulas, written again in the plainest way."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as tf

import limbeck.functional as F
from limbeck.errors import InputError

GENERATOR = torch.Generator().manual_seed(0)
STUDENT, TEACHER = torch.randn(2, 6, 5, dtype=torch.float64, generator=GENERATOR)
TARGET = torch.tensor([0, 1, 2, 3, 4, 0])


def near(value, expected):
    torch.testing.assert_close(torch.as_tensor(value), torch.as_tensor(expected))


def test_kd_is_the_usual_line():
    usual = tf.kl_div((STUDENT / 3).log_softmax(1), (TEACHER / 3).softmax(1), reduction="batchmean")
    near(F.kd_loss(STUDENT, TEACHER, temperature=3.0), 9 * usual)


def test_cross_entropy_form_is_the_teachers_entropy_at_equality():
    p = (TEACHER / 4).softmax(1)
    entropy = -(p * p.log()).sum(1).mean()
    near(F.kd_loss(TEACHER, TEACHER, cross_entropy=True), 16 * entropy)
    coins = torch.distributions.Bernoulli(logits=TEACHER).entropy().sum(1).mean()
    near(F.bce_kd_loss(TEACHER, TEACHER, cross_entropy=True), coins)


def test_dkd_with_the_right_weights_is_kd():
    """KL = target KL + (1 − p_t(y)) · non-target KL."""
    odds = TEACHER.softmax(1).gather(1, TARGET[:, None]).squeeze(1)
    terms = [
        F.dkd_loss(STUDENT, TEACHER, TARGET, temperature=1.0, alpha=a, beta=b, reduction="none")
        for a, b in ((1, 0), (0, 1))
    ]
    whole = F.kd_loss(STUDENT, TEACHER, temperature=1.0, reduction="none")
    near(terms[0] + (1 - odds) * terms[1], whole)


def test_standardized_logits_have_mean_0_and_deviation_1():
    z = F.standardize(STUDENT)
    near(z.mean(1), torch.zeros(6, dtype=z.dtype))
    torch.testing.assert_close(z.std(1), torch.ones(6, dtype=z.dtype), rtol=0, atol=1e-6)
    near(
        F.kd_loss(5 * STUDENT + 2, TEACHER, standardize=True),
        F.lskd_loss(STUDENT, TEACHER, temperature=4.0),
    )


@pytest.mark.parametrize(
    "loss",
    [F.kd_loss, F.dist_loss, F.wttm_loss, F.logit_mse_loss, F.mlkd_class_loss, F.lskd_loss],
)
def test_dense_predictions_are_many_samples(loss):
    student, teacher = torch.randn(2, 2, 3, 4, 2, dtype=torch.float64, generator=GENERATOR)
    rows = [x.movedim(1, -1).reshape(-1, 3) for x in (student, teacher)]
    near(loss(student, teacher), loss(*rows))


@pytest.mark.parametrize("loss", [F.dkd_loss, F.nkd_loss, F.wsld_loss, F.ofa_loss, F.pskd_loss])
def test_dense_targets_are_many_samples(loss):
    student, teacher = torch.randn(2, 2, 3, 4, 2, dtype=torch.float64, generator=GENERATOR)
    target = torch.randint(3, (2, 4, 2), generator=GENERATOR)
    rows = [x.movedim(1, -1).reshape(-1, 3) for x in (student, teacher)]
    near(loss(student, teacher, target), loss(*rows, target.flatten()))
    assert loss(student, teacher, target, reduction="none").shape == target.shape


def test_dist_is_one_minus_correlation():
    assert F.dist_loss(STUDENT, STUDENT) == pytest.approx(0, abs=1e-4)  # its norms have 1e-8 added
    correlations = [
        torch.corrcoef(torch.stack([s, t]))[0, 1]
        for s, t in zip(STUDENT.softmax(1), TEACHER.softmax(1), strict=True)
    ]
    inter = 1 - torch.stack(correlations).mean()
    torch.testing.assert_close(
        F.dist_loss(STUDENT, TEACHER, gamma=0.0), inter, rtol=1e-5, atol=1e-7
    )


def test_mlkd_is_the_sum_of_its_levels_over_temperatures():
    expected = sum(
        2 * F.kd_loss(STUDENT, TEACHER, temperature=t)
        + F.mlkd_batch_loss(STUDENT, TEACHER, temperature=t)
        + 3 * F.mlkd_class_loss(STUDENT, TEACHER, temperature=t)
        for t in (1.0, 5.0)
    )
    near(
        F.mlkd_loss(STUDENT, TEACHER, temperatures=(1.0, 5.0), instance=2.0, classes=3.0), expected
    )


def test_wttm_powers_the_teacher_only():
    power = TEACHER.softmax(1) ** (1 / 4)
    p = power / power.sum(1, keepdim=True)
    ttm = (p * (p.log() - STUDENT.log_softmax(1))).sum(1)
    near(F.wttm_loss(STUDENT, TEACHER, weighted=False, reduction="none"), ttm)
    near(F.wttm_loss(STUDENT, TEACHER), (power.sum(1) * ttm).mean())


def test_ofa_is_cross_entropy_at_gamma_1_and_enhances_the_target_above():
    near(F.ofa_loss(STUDENT, TEACHER, TARGET), tf.cross_entropy(STUDENT, TEACHER.softmax(1)))
    truth = tf.one_hot(TARGET, 5)
    weights = (TEACHER.softmax(1) + truth) ** 1.5 - truth
    expected = -(weights * STUDENT.log_softmax(1)).sum(1).mean()
    near(F.ofa_loss(STUDENT, TEACHER, TARGET, gamma=1.5), expected)


def test_deit_tokens():
    near(F.deit_hard_loss(STUDENT, TEACHER), tf.cross_entropy(STUDENT, TEACHER.argmax(1)))
    near(F.deit_soft_loss(STUDENT, TEACHER), F.kd_loss(STUDENT, TEACHER, temperature=3.0))


def test_mse_sums_over_classes():
    near(F.logit_mse_loss(STUDENT, TEACHER), 5 * tf.mse_loss(STUDENT, TEACHER))


def test_bce_kd_is_the_kl_of_coins():
    coins = [torch.distributions.Bernoulli(logits=z / 2) for z in (TEACHER, STUDENT)]
    expected = torch.distributions.kl_divergence(*coins).sum(1).mean()
    near(F.bce_kd_loss(STUDENT, TEACHER, temperature=2.0), 4 * expected)


@pytest.mark.parametrize("shape", [(4,), (4, 3)])
def test_regression(shape):
    student, teacher, target = torch.randn(3, *shape, generator=GENERATOR)
    rows = student.view(4, -1), teacher.view(4, -1), target.view(4, -1)
    near(F.regression_loss(student, teacher), (rows[0] - rows[1]).square().sum(1).mean())
    near(
        F.regression_loss(student, teacher, distance="l1"), (rows[0] - rows[1]).abs().sum(1).mean()
    )
    ours, theirs = ((x - rows[2]).square().sum(1) for x in rows[:2])
    expected = torch.where(ours + 0.5 > theirs, ours, torch.zeros(4)).mean()
    near(F.bounded_regression_loss(student, teacher, target, margin=0.5), expected)


def test_mutual_learning_averages_over_peers_and_leaves_them_alone():
    peers = [TEACHER.clone().requires_grad_(), (TEACHER / 2).requires_grad_()]
    expected = sum(F.kd_loss(STUDENT, p, temperature=1.0) for p in peers) / 2
    value = F.dml_loss(STUDENT, peers)
    near(value, expected)
    assert not value.requires_grad


def test_past_predictions_gain_weight():
    assert F.pskd_weight(0, 10) == pytest.approx(0.08)
    assert F.pskd_weight(9, 10) == pytest.approx(0.8)
    near(F.pskd_loss(STUDENT, TEACHER, TARGET, weight=0.0), tf.cross_entropy(STUDENT, TARGET))


def test_virtual_teacher_prefers_the_target():
    values = torch.full((1, 4), 0.1 / 3, dtype=torch.float64)
    values[0, 2] = 0.9
    p, q = (values / 5).softmax(1), STUDENT[:1, :4].log_softmax(1)
    expected = (p * (p.log() - q)).sum()
    near(
        F.tfkd_reg_loss(STUDENT[:1, :4], torch.tensor([2]), temperature=5.0, correct=0.9), expected
    )


def test_learned_temperature_climbs_the_loss():
    theta = torch.zeros(1, requires_grad=True)
    near(F.ctkd_temperature(theta, start=1.0, span=20.0).detach(), torch.tensor([11.0]))
    gradients = [
        torch.autograd.grad(F.ctkd_loss(STUDENT, TEACHER, theta, strength=strength), theta)[0]
        for strength in (1.0, -0.5, 0.0)
    ]
    near(gradients[1], -0.5 * gradients[0])
    near(gradients[2], torch.zeros(1))


def test_strength_of_the_learned_temperature():
    assert F.ctkd_strength(0) == 0.0
    assert F.ctkd_strength(5) == pytest.approx(-0.5)
    assert F.ctkd_strength(99) == -1.0
    assert F.ctkd_strength(99, kind="linear") == pytest.approx(-0.9)


def test_regions_are_means_of_cells():
    features = torch.arange(32.0).view(1, 2, 4, 4)
    pooled = F.sdd_pool(features, scales=(1, 2))
    assert pooled.shape == (1, 2, 5)
    near(pooled[0, 0], torch.tensor([7.5, 2.5, 4.5, 10.5, 12.5]))


def test_complementary_regions_weigh_more():
    """The teacher is right on the whole image and wrong on the second of two regions."""
    teacher = torch.tensor([[[5.0, 4.0, 0.0], [0.0, 0.0, 3.0]]])
    student, target = torch.zeros(1, 2, 3), torch.tensor([0])
    each = [F.dkd_loss(student[..., i], teacher[..., i], target) for i in range(3)]
    near(F.sdd_loss(student, teacher, target), (each[0] + each[1] + 2 * each[2]) / 3)
    flat = F.sdd_loss(student, teacher, target, complementary=1.0)
    near(flat, sum(each) / 3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: F.kd_loss(STUDENT, TEACHER, temperature=0), "temperature is 0"),
        (lambda: F.kd_loss(STUDENT, TEACHER, temperature=math.nan), "temperature is nan"),
        (lambda: F.kd_loss(STUDENT, TEACHER[:, :4]), r"\(6, 5\) and teacher logits \(6, 4\)"),
        (lambda: F.kd_loss(STUDENT[:0], TEACHER[:0]), "at least one sample"),
        (lambda: F.kd_loss(STUDENT[0], TEACHER[0]), "2 or more dimensions"),
        (lambda: F.kd_loss(TARGET, TARGET), "torch.int64: a floating point"),
        (lambda: F.kd_loss(STUDENT, None), "NoneType: a floating point"),
        (lambda: F.kd_loss(STUDENT, TEACHER, reduction="batchmean"), "'mean', 'sum' or 'none'"),
        (lambda: F.dkd_loss(STUDENT, TEACHER, TARGET, beta=-1), "beta is -1: it must be 0 or more"),
        (lambda: F.dkd_loss(STUDENT, TEACHER, TARGET[:3]), r"targets have shape \(3,\)"),
        (lambda: F.dkd_loss(STUDENT, TEACHER, TARGET.double()), "type torch.float64: class ids"),
        (lambda: F.nkd_loss(STUDENT, TEACHER, TARGET, gamma=-1.0), "gamma is -1.0"),
        (lambda: F.nkd_loss(STUDENT, TEACHER, TARGET, temperature=-1.0), "temperature is -1.0"),
        (lambda: F.ofa_loss(STUDENT, TEACHER, TARGET, gamma=0.0), "gamma is 0.0"),
        (lambda: F.pskd_loss(STUDENT, TEACHER, TARGET, weight=1.5), "between 0 and 1"),
        (lambda: F.mlkd_loss(STUDENT, TEACHER, temperatures=()), "temperatures is empty"),
        (lambda: F.dml_loss(STUDENT, []), "there is no peer"),
        (lambda: F.regression_loss(STUDENT, TEACHER, distance="l3"), "one of mse, l1, smooth_l1"),
        (lambda: F.ctkd_strength(3, kind="square"), "'cosine' or 'linear'"),
        (lambda: F.sdd_pool(STUDENT), "a map"),
        (lambda: F.sdd_loss(STUDENT, TEACHER, TARGET), r"\[batch, classes, regions\]"),
    ],
)
def test_bad_input_is_one_sentence(call, words):
    with pytest.raises(InputError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)
