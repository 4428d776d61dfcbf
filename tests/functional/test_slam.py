"""Student-label mixing and its neighbors: identities, gradients, extremes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import limbeck.functional as F
from limbeck.errors import InputError


@st.composite
def batches(draw):
    """Student logits, teacher probabilities, α in (1/2, 1) and k of a small batch, float64."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    size, classes = draw(st.integers(1, 5)), draw(st.integers(2, 6))
    scale = draw(st.sampled_from([0.1, 1.0, 8.0]))
    logits = scale * torch.randn(2, size, classes, generator=generator, dtype=torch.float64)
    alpha = 0.5 + 0.49 * torch.rand(size, generator=generator, dtype=torch.float64)
    k = torch.randint(2, classes + 1, (size,), generator=generator)
    return logits[0], logits[1].softmax(1), alpha, k


@given(batches(), st.booleans())
@settings(max_examples=40, deadline=None)
def test_an_accuracy_of_one_is_cross_entropy(batch, hard):
    student, probs, _, k = batch
    target = probs.argmax(1) if hard else probs
    expected = torch.nn.functional.cross_entropy(student, target, reduction="none")
    found = F.slam_loss(student, probs, alpha=1.0, k=k, hard=hard, reduction="none")
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-14)


@given(batches())
@settings(max_examples=40, deadline=None)
def test_a_hard_label_pulls_by_the_published_weight(batch):
    student, probs, alpha, k = batch
    student.requires_grad_()
    loss = F.slam_loss(student, probs, alpha=alpha, k=k, hard=True, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, student)
    f = student.detach().softmax(1)
    label = torch.nn.functional.one_hot(probs.argmax(1), f.shape[1]).double()
    believed = (f * label).sum(1)
    weight = (2 * alpha - 1) * believed / (1 - alpha + (2 * alpha - 1) * believed)
    torch.testing.assert_close(gradient, -weight[:, None] * (label - f), rtol=1e-9, atol=1e-12)


@given(batches(), st.booleans(), st.booleans())
@settings(max_examples=40, deadline=None)
def test_values_are_finite_and_not_negative(batch, hard, normalize):
    student, probs, alpha, k = batch
    options = {"alpha": alpha, "k": k, "normalize": normalize, "hard": hard}
    values = F.slam_loss(40 * student, probs, reduction="none", **options)
    assert values.isfinite().all()
    assert (values >= -1e-12).all()


@given(batches())
@settings(max_examples=30, deadline=None)
def test_the_mixed_prediction_is_the_formula(batch):
    student, probs, alpha, k = batch
    f, a = student.softmax(1), alpha[:, None]
    mask = (probs >= probs.sort(1, descending=True).values.gather(1, k[:, None] - 1)).double()
    for normalize, kappa in ((False, torch.ones_like(a)), (True, 1 / (k[:, None].double() - 1))):
        expected = a * f + (1 - a) * kappa * mask * (1 - f)
        found = F.slam_mix(student, probs, alpha=alpha, k=k, normalize=normalize)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


@given(batches(), st.booleans())
@settings(max_examples=15, deadline=None)
def test_gradients(batch, hard):
    student, probs, alpha, k = batch

    def loss(logits):
        return F.slam_loss(
            logits, probs, alpha=alpha, k=k, hard=hard, normalize=True, temperature=2.0
        )

    assert torch.autograd.gradcheck(loss, student.requires_grad_())


def test_hard_plain_mixing_does_not_know_k():
    student, probs = torch.randn(4, 5), torch.rand(4, 5).softmax(1)
    one = F.slam_loss(student, probs, alpha=0.7, k=2, hard=True)
    assert torch.equal(one, F.slam_loss(student, probs, alpha=0.7, hard=True))
    other = F.slam_loss(student, probs, alpha=0.7, k=2, hard=True, normalize=True)
    assert other != F.slam_loss(student, probs, alpha=0.7, hard=True, normalize=True)


def test_an_inert_sample_has_no_gradient():
    student = torch.randn(3, 4, requires_grad=True)
    loss = F.slam_loss(student, torch.rand(3, 4).softmax(1), alpha=0.5, hard=True)
    (gradient,) = torch.autograd.grad(loss, student)
    assert gradient.abs().max() < 1e-6


def test_the_tail_can_be_dropped():
    student = torch.randn(3, 4, dtype=torch.float64)
    probs = torch.tensor([[0.5, 0.3, 0.15, 0.05]] * 3, dtype=torch.float64)
    kept = F.slam_loss(student, probs, alpha=0.8, k=2, reduction="none")
    dropped = F.slam_loss(student, probs, alpha=0.8, k=2, tail="drop", reduction="none")
    tail = -(probs * (0.8 * student.softmax(1)).log())[:, 2:].sum(1)
    torch.testing.assert_close(kept - dropped, tail)


def test_half_precision_is_computed_in_single():
    student, probs = torch.randn(6, 5), torch.randn(6, 5).softmax(1)
    found = F.slam_loss(student.bfloat16(), probs.bfloat16(), alpha=0.7)
    assert found.dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"alpha": 1.2}, "alpha is 1.2: it must lie between 0 and 1"),
        ({"alpha": 0.0}, "alpha is 0.0"),
        ({"alpha": torch.ones(3)}, r"alpha has shape \(3,\): one number, or one for each of the 2"),
        ({"alpha": 0.7, "k": 1}, "k is 1: it must lie between 2 and 4"),
        ({"alpha": 0.7, "k": 5}, "k is 5: it must lie between 2 and 4"),
        ({"alpha": 0.7, "tail": "cut"}, "tail is 'cut': it must be 'keep' or 'drop'"),
        ({"alpha": 0.7, "temperature": 0.0}, "temperature is 0.0: it must be above 0"),
    ],
)
def test_what_slam_refuses(options, words):
    with pytest.raises(InputError, match=words):
        F.slam_loss(torch.randn(2, 4), torch.randn(2, 4).softmax(1), **options)


def test_forward_correction_is_cross_entropy_for_a_perfect_teacher():
    student, probs = torch.randn(4, 3).double(), torch.randn(4, 3).double().softmax(1)
    found = F.forward_loss(student, probs, torch.eye(3), hard=False)
    torch.testing.assert_close(found, torch.nn.functional.cross_entropy(student, probs))


def test_forward_correction_is_right_at_the_truth():
    """The student that knows the true class has the least expected loss, whatever the confusion."""
    confusion = torch.tensor([[0.5, 0.4, 0.1], [0.0, 0.9, 0.1], [0.3, 0.1, 0.6]]).double()
    logits = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.eye(3, dtype=torch.float64)
    for _ in range(800):
        losses = [
            F.forward_loss(logits, y.expand(3, 3), confusion, reduction="none") for y in labels
        ]
        loss = (confusion.T * torch.stack(losses)).sum()
        (gradient,) = torch.autograd.grad(loss, logits)
        logits = (logits - 2 * gradient).detach().requires_grad_()
    assert (logits.softmax(1).diagonal() > 0.97).all()


def test_taylor_grows_to_cross_entropy():
    student, y = torch.randn(5, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    f = student.softmax(1)[torch.arange(5), y]
    torch.testing.assert_close(F.taylor_loss(student, y), ((1 - f) + (1 - f) ** 2 / 2).mean())
    expected = torch.nn.functional.cross_entropy(student, y)
    torch.testing.assert_close(F.taylor_loss(student, y, order=2000), expected)
    assert F.taylor_loss(1e4 * torch.eye(2)[[1]], torch.tensor([0])) == pytest.approx(1.5)
    with pytest.raises(InputError, match="order is 0"):
        F.taylor_loss(student, y, order=0)


def test_the_loss_is_capped():
    student = torch.tensor([[-500.0, 500.0]], requires_grad=True)
    loss = F.slam_loss(student, torch.tensor([[0.9, 0.1]]), alpha=0.8, hard=True)
    assert loss.item() == pytest.approx(-math.log(0.2))
    assert torch.autograd.grad(loss, student)[0].isfinite().all()
