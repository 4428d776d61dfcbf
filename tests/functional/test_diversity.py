"""Diversity of an ensemble: perturbed inputs, temperature, equivalents, what is measured."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

import limbeck.functional as F
from limbeck.errors import InputError


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def probabilities(*shape: int, seed: int = 0) -> Tensor:
    return random(*shape, seed=seed).softmax(-1)


class TestSpread:
    def teacher(self) -> nn.Module:
        torch.manual_seed(0)
        layers = nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 4)
        return nn.Sequential(*layers).double()

    def test_direction_is_the_gradient(self):
        teacher, x, w = self.teacher(), probabilities(5, 3, 4), random(5, 4, seed=1)
        spread = F.output_spread(teacher, x, w, temperature=2.0)
        inputs = x.clone().requires_grad_()
        p = (teacher(inputs) / 2).softmax(-1)
        (gradient,) = torch.autograd.grad((w * p).sum(), inputs)
        norms = gradient.flatten(1).norm(dim=1)
        torch.testing.assert_close(spread.norm, norms)
        torch.testing.assert_close(spread.direction, gradient / norms[:, None, None])
        torch.testing.assert_close(spread.confidence, p.amax(-1).detach())
        assert not spread.flat.any()

    def test_step_is_the_root_mean_square_in_units(self):
        x = torch.full((5, 3, 4), 0.5, dtype=torch.float64)
        spread = F.output_spread(self.teacher(), x, random(5, 4))
        moved = F.diversify(x, spread, step=2.0, confident=False) - x
        torch.testing.assert_close(
            moved.square().mean((1, 2)).sqrt() * 255, torch.full((5,), 2.0).double()
        )
        less = F.diversify(x, spread, step=2.0) - x
        torch.testing.assert_close(less, moved * spread.confidence[:, None, None])
        far = F.diversify(x, spread, step=400.0, confident=False)
        assert (far.min(), far.max()) == (0, 1)

    def test_a_sure_teacher_in_single_precision_still_has_a_direction(self):
        """Its largest probability rounds to 1, where the plain softmax passes no gradient."""
        teacher, x, w = self.teacher(), probabilities(5, 3, 4), random(5, 4, seed=1)
        with torch.no_grad():
            logits = teacher(x)
            gaps = logits.topk(2, -1).values
            teacher[3].weight *= 20 / (gaps[:, 0] - gaps[:, 1]).min()
            teacher[3].bias *= 20 / (gaps[:, 0] - gaps[:, 1]).min()
        exact = F.output_spread(teacher, x, w)
        single = F.output_spread(teacher.float(), x.float(), w.float())
        seen = ~exact.flat
        assert bool(seen.any())
        assert torch.equal(single.flat, exact.flat)
        cosine = (single.direction.double() * exact.direction).flatten(1).sum(1)
        assert (cosine[seen] > 0.999).all()

    def test_a_flat_teacher_leaves_samples_where_they_are(self):
        x = probabilities(3, 4)
        layer = nn.Linear(4, 2).double()
        with torch.no_grad():
            layer.weight.zero_()
        spread = F.output_spread(layer, x, random(3, 2))
        assert spread.flat.all()
        assert torch.equal(F.diversify(x, spread), x)


def test_loss_is_labels_beside_member_by_member_kd():
    student, teacher, clean = (random(6, 3, seed=seed) for seed in range(3))
    target = torch.tensor([0, 2])
    loss = F.ensemble_diversity_loss(student, teacher, clean, target, temperature=2.0, share=0.7)
    labels = torch.stack([nn.functional.cross_entropy(part, target) for part in clean.split(2)])
    kd = [F.kd_loss(*pair, temperature=2.0) for pair in zip(student.split(2), teacher.split(2))]  # noqa: B905
    torch.testing.assert_close(loss, 0.3 * labels.mean() + 0.7 * torch.stack(kd).mean())
    with pytest.raises(InputError, match="6 rows of logits for 4 targets"):
        F.ensemble_diversity_loss(student, teacher, clean, torch.zeros(4, dtype=torch.long))
    with pytest.raises(InputError, match="share"):
        F.ensemble_diversity_loss(student, teacher, clean, target, share=1.5)


def test_pairs():
    p = probabilities(4, 7, 3)
    divergence = [
        (p[j] * (p[j] / p[i]).log()).sum(-1).mean() for i, j in itertools.permutations(range(4), 2)
    ]
    torch.testing.assert_close(F.pairwise_kl(p), torch.stack(divergence).mean())
    different = [
        (p[i].argmax(-1) != p[j].argmax(-1)).float().mean()
        for i, j in itertools.combinations(range(4), 2)
    ]
    torch.testing.assert_close(F.pairwise_disagreement(p), torch.stack(different).mean())
    assert F.pairwise_kl(p[:1].expand(3, -1, -1)).abs() < 1e-12
    with pytest.raises(InputError, match="at least two members"):
        F.pairwise_kl(p[:1])
    assert F.member_kl(p, p) == 0
    torch.testing.assert_close(
        F.member_kl(p[:1], p[1:2]), (p[1] * (p[1] / p[0]).log()).sum(-1).mean()
    )


def test_log_mean_probability():
    logits = random(3, 4, 5)
    torch.testing.assert_close(F.log_mean_probability(logits).exp(), logits.softmax(-1).mean(0))


@pytest.mark.parametrize("factor", [0.3, 1.0, 4.0])
def test_temperature_is_the_likeliest(factor):
    logits = factor * random(200, 4)
    target = torch.distributions.Categorical(logits=logits / factor).sample()

    def loss(log_t: float) -> float:
        return nn.functional.cross_entropy(logits / math.exp(log_t), target).item()

    best = minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-10})
    assert math.log(F.fit_temperature(logits, target)) == pytest.approx(best.x, abs=1e-5)


def test_temperature_stays_within_its_bounds():
    certain = torch.eye(3)
    assert F.fit_temperature(certain, torch.arange(3)) == pytest.approx(math.exp(-3))
    assert F.fit_temperature(certain, torch.tensor([1, 2, 0])) == pytest.approx(math.exp(3))


def test_an_ensembles_equivalent():
    curve = [-1.0, -0.8, -0.9, -0.6]
    equivalent = [
        F.deep_ensemble_equivalent(curve, value) for value in (-1.1, -1, -0.9, -0.7, -0.5)
    ]
    assert equivalent == pytest.approx([0, 1, 1.5, 3.5, math.inf])


def test_curve_rises_for_independent_members():
    truth = torch.arange(300) % 4
    members = (2 * torch.eye(4)[truth] + 2 * random(5, 300, 4)).softmax(-1)
    curve = F.ensemble_curve(members[:, :150], truth[:150], members[:, 150:], truth[150:])
    assert len(curve) == 5
    assert curve == sorted(curve)
