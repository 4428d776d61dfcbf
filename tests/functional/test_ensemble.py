"""Teachers in gradient space: closed forms against autograd, spaces, caps, and the gate."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import limbeck.functional as F
from limbeck.errors import InputError


def logits(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


STUDENT, TEACHERS = logits(6, 5), logits(4, 6, 5, seed=1)


def test_losses_are_kd_losses_and_gradients_theirs():
    student = STUDENT.clone().requires_grad_()
    losses = F.ensemble_losses(student, TEACHERS, temperature=3.0)
    gradients = F.ensemble_gradients(student, TEACHERS, temperature=3.0)
    for loss, gradient, teacher in zip(losses, gradients, TEACHERS, strict=True):
        torch.testing.assert_close(loss, F.kd_loss(student, teacher, temperature=3.0))
        (found,) = torch.autograd.grad(loss, student, retain_graph=True)
        torch.testing.assert_close(gradient, found)
    each = F.ensemble_losses(student, TEACHERS, temperature=3.0, per_sample=True)
    torch.testing.assert_close(each.mean(1), losses)


def test_weighted_loss_has_the_gradient_of_the_mixture():
    student = STUDENT.clone().requires_grad_()
    weights = F.ensemble_weights(student, list(TEACHERS), temperature=1.0)
    loss = (weights * F.ensemble_losses(student, TEACHERS, temperature=1.0)).sum()
    mixture = torch.einsum("m,mbk->bk", weights, TEACHERS.softmax(-1)).log()
    ours, other = (
        torch.autograd.grad(value, student)[0]
        for value in (loss, F.kd_loss(student, mixture, temperature=1.0))
    )
    torch.testing.assert_close(ours, other)
    assert not weights.requires_grad


def test_a_teacher_is_heard_on_its_own_classes_alone():
    teachers = TEACHERS.clone()
    teachers[1, :, 3:] = -torch.inf
    student = STUDENT.clone().requires_grad_()
    losses = F.ensemble_losses(student, teachers, temperature=2.0)
    own = F.kd_loss(student[:, :3], teachers[1, :, :3], temperature=2.0)
    torch.testing.assert_close(losses[1], own)
    (found,) = torch.autograd.grad(losses[1], student)
    gradient = F.ensemble_gradients(student, teachers, temperature=2.0)[1]
    torch.testing.assert_close(gradient, found)
    assert (gradient[:, 3:] == 0).all()
    assert F.ensemble_weights(student, teachers).isfinite().all()


def test_spaces():
    gradients = F.ensemble_gradients(STUDENT, TEACHERS)
    batch = F.gradient_gram(gradients)
    samples = F.gradient_gram(gradients, scope="sample")
    assert samples.shape == (6, 4, 4)
    torch.testing.assert_close(samples.sum(0), batch)
    mean = F.gradient_gram(gradients, scope="batch_mean")
    torch.testing.assert_close(mean, gradients.mean(1) @ gradients.mean(1).T)
    weights = F.ensemble_weights(STUDENT, TEACHERS, scope="sample")
    torch.testing.assert_close(weights.sum(-1), torch.ones(6, dtype=torch.float64))


def test_a_permuted_teacher_hides_in_the_space_of_means():
    """Balanced classes: the means of the predictions agree, the predictions do not."""
    good = 6 * torch.eye(5, dtype=torch.float64)
    gradients = F.ensemble_gradients(0.9 * good, [good, good.roll(1, 1)])
    assert F.gradient_gram(gradients, scope="batch_mean").abs().max() < 1e-20
    assert F.gradient_gram(gradients).diagonal().max() > 0.1


def test_normalised_weights_and_the_two_caps():
    gradients = torch.eye(3, dtype=torch.float64)[:, None] * torch.tensor([1.0, 1.0, 0.01])
    gram = F.gradient_gram(gradients)
    alpha = F.gram_weights(gram, tolerance=0.6, normalize=True)
    torch.testing.assert_close(alpha, torch.tensor([1, 1, 100]).double() / 102)
    capped = F.gram_weights(gram, tolerance=0.6, normalize=True, cap_on="weight")
    torch.testing.assert_close(capped, torch.tensor([0.2, 0.2, 0.6]).double())
    with pytest.raises(InputError, match="cap_on is 'both'"):
        F.gram_weights(gram, tolerance=0.6, cap_on="both")  # type: ignore[arg-type]


@pytest.mark.parametrize("normalize", [False, True])
def test_equal_teachers_and_no_gradient_weigh_the_same(normalize):
    for teachers in (STUDENT.expand(3, -1, -1), TEACHERS[:1].expand(3, -1, -1)):
        weights = F.ensemble_weights(STUDENT, teachers, normalize=normalize)
        torch.testing.assert_close(weights, torch.full((3,), 1 / 3, dtype=torch.float64))


def cosines(*rows: list[float]) -> Tensor:
    return torch.tensor(rows)


def test_the_gate_leaves_out_who_opposes_the_others():
    good = 4 * torch.eye(6, dtype=torch.float64)
    teachers = torch.stack([good, good + logits(6, 6) / 2, good + logits(6, 6, seed=2) / 2])
    bad = torch.cat([teachers, good.roll(2, 1)[None]])
    gram = F.gradient_gram(F.ensemble_gradients(good / 2, bad))
    agreement = F.teacher_agreement(F.gradient_cosines(gram))
    assert agreement[3] < -0.3
    assert (agreement[:3] > 0.1).all()
    assert F.agreement_gate(F.gradient_cosines(gram)).tolist() == [True, True, True, False]


def test_the_gate_hears_all_where_camps_are_equal_or_too_few_remain():
    two = cosines(
        [1, 0.9, -0.5, -0.5], [0.9, 1, -0.5, -0.5], [-0.5, -0.5, 1, 0.9], [-0.5, -0.5, 0.9, 1]
    )
    assert F.opposed_camps(two) == ([0, 1], [2, 3])
    assert F.agreement_gate(two).all()
    weak = cosines(
        [1, 0.9, -0.1, -0.1], [0.9, 1, -0.1, -0.1], [-0.1, -0.1, 1, 0.1], [-0.1, -0.1, 0.1, 1]
    )
    assert F.teacher_agreement(weak).tolist() == pytest.approx(
        [0.7 / 3, 0.7 / 3, -0.1 / 3, -0.1 / 3]
    )
    assert F.agreement_gate(weak).all()
    pair = cosines([1, -0.5], [-0.5, 1])
    assert F.agreement_gate(pair).all()
    assert F.opposed_camps(torch.ones(4, 4)) is None


def test_a_gradient_of_zero_opposes_nobody():
    gram = torch.tensor([[0.0, 0.0, 0.0], [0.0, 4.0, 1.0], [0.0, 1.0, 1.0]])
    found = F.gradient_cosines(gram)
    assert found[0].tolist() == [1, 1, 1]
    assert found[1, 2].item() == pytest.approx(0.5)
    assert F.agreement_gate(found).all()


def test_bad_input():
    with pytest.raises(InputError, match="at least two teachers: with one, use kd_loss"):
        F.ensemble_weights(STUDENT, TEACHERS[:1])
    with pytest.raises(InputError, match=r"teacher 1 have shape \(6, 4\)"):
        F.ensemble_weights(STUDENT, [STUDENT, STUDENT[:, :4]])
    with pytest.raises(InputError, match="scope is 'epoch'"):
        F.ensemble_weights(STUDENT, TEACHERS, scope="epoch")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"at least 0\.25"):
        F.ensemble_weights(STUDENT, TEACHERS, tolerance=0.2)
