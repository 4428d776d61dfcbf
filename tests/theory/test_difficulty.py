"""Linearized students: kernels, the grid of mixes, data inefficiency, bad input."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from limbeck.errors import InputError
from limbeck.models.small import convnet, mlp
from limbeck.theory import (
    KernelStudent,
    Tangent,
    conjugate_gradient,
    data_inefficiency,
    difficulty,
    mean_log_norms,
    risk_bound,
    weight_norms,
    window_inefficiency,
)
from limbeck.theory.difficulty import ridged


def samples(count: int, *shape: int, seed: int = 0) -> torch.Tensor:
    draws = torch.Generator().manual_seed(seed)
    return torch.randn(count, *shape, generator=draws, dtype=torch.float64)


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return convnet(classes=3, in_channels=1, widths=(4,)).double()


def test_gradients_are_autograds() -> None:
    model, x = network(), samples(2, 1, 6, 6)
    jacobian = Tangent(model).jacobian(x)
    model.eval()
    for c in range(3):
        gradients = torch.autograd.grad(model(x)[1, c], list(model.parameters()))
        flat = torch.cat([g.flatten() for g in gradients])
        torch.testing.assert_close(jacobian[1, c], flat)


def test_blocks_and_products_give_the_same_kernel() -> None:
    model, x, other = network(), samples(7, 1, 6, 6), samples(4, 1, 6, 6, seed=1)
    tangent = Tangent(model)
    tight = Tangent(model, memory=3 * 3 * 8 * tangent.size * 2.5)  # two samples a block
    torch.testing.assert_close(tight.kernel(x), tangent.kernel(x), rtol=1e-10, atol=1e-12)
    for ours, whole in zip(tight.kernels(x, other), tangent.kernels(x, other), strict=True):
        torch.testing.assert_close(ours, whole, rtol=1e-10, atol=1e-12)
    full = tangent.kernel(x, full=True)
    torch.testing.assert_close(full.diagonal(dim1=2, dim2=3).permute(2, 0, 1), tangent.kernel(x))
    vector = samples(7, 3, seed=2)
    expected = torch.einsum("nmcd,md->nc", full, vector)
    torch.testing.assert_close(tangent.product(x, vector), expected, rtol=1e-10, atol=1e-10)


def test_conjugate_gradients_solve_the_same_system() -> None:
    tangent, x = Tangent(network()), samples(10, 1, 6, 6)
    target = samples(10, 3, seed=3)
    ridge = 1e-2 * float(tangent.kernel(x).diagonal(dim1=1, dim2=2).mean())
    solution, steps = conjugate_gradient(lambda v: tangent.product(x, v) + ridge * v, target)
    full = tangent.kernel(x, full=True).permute(0, 2, 1, 3).reshape(30, 30)
    exact = torch.linalg.solve(full + ridge * torch.eye(30).double(), target.flatten())
    torch.testing.assert_close(solution.flatten(), exact, rtol=1e-5, atol=1e-6)
    assert steps <= 60
    with pytest.raises(InputError, match="raise the ridge"):
        conjugate_gradient(lambda v: tangent.product(x, v), target, steps=2)


def test_an_operation_that_vmap_does_not_know_is_looped_over() -> None:
    class Sorted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 2).double()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x) * (1.0 if x.sum().item() > -1e9 else 0.0)

    model, x = Sorted(), samples(3, 4)
    plain = Tangent(model.linear).jacobian(x)
    torch.testing.assert_close(Tangent(model).jacobian(x), plain)


def test_every_n_from_one_factorization() -> None:
    features, z = samples(20, 50), samples(20, 1, seed=1)
    kernel = (features @ features.T)[None]
    norms = weight_norms(kernel, z, ridge=0)
    for n in (1, 7, 20):
        weights = torch.linalg.lstsq(features[:n], z[:n]).solution
        assert float(norms[n - 1]) == pytest.approx(float(weights.norm()), rel=1e-10)
    student = KernelStudent(kernel, ridge=0)
    assert student.norm(z) == pytest.approx(float(norms[-1]))
    assert student.condition == pytest.approx(float(torch.linalg.cond(kernel[0])), rel=1e-6)


def test_inefficiency_of_a_power_law_is_its_exponent() -> None:
    logs = 0.3 * torch.arange(1, 257, dtype=torch.float64).log()
    assert window_inefficiency(logs, 64, 256) == pytest.approx(0.3)
    assert float(data_inefficiency(logs)[-1]) == pytest.approx(0.3, abs=1e-3)


def test_orders_average_and_repeat() -> None:
    features, z = samples(16, 40), samples(16, 1, seed=1)
    kernel = (features @ features.T)[None]
    first = mean_log_norms(kernel, z, orders=3, seed=5)
    assert torch.equal(first, mean_log_norms(kernel, z, orders=3, seed=5))
    assert not torch.equal(first, mean_log_norms(kernel, z, orders=3, seed=6))
    exact = weight_norms(kernel, z)[-1].log()
    assert float(first[-1]) == pytest.approx(float(exact))  # all samples: the order is nothing


def test_the_bound_holds_and_is_not_empty() -> None:
    features, held_out = samples(300, 20), samples(500, 20, seed=1)
    oracle = samples(20, 1, seed=2)
    z, values = features @ oracle, (held_out @ oracle)[:, 0]
    for n in (5, 15, 19):
        student = KernelStudent((features[:n] @ features[:n].T)[None], ridge=0)
        predicted = student.predict(z[:n], (held_out @ features[:n].T)[None])[:, 0]
        risk = float((predicted * values < 0).double().mean())
        bound = risk_bound(
            student.norm(z[:n]), float(oracle.norm()), values, held_out.square().sum(1)
        )
        assert risk <= bound
    assert bound < 1


def task(noise: float, seed: int = 0) -> tuple[torch.Tensor, ...]:
    x, held_out = samples(120, 2, seed=seed), samples(300, 2, seed=seed + 1)
    truth, truth_held_out = (torch.sin(2 * part).sum(1, keepdim=True) for part in (x, held_out))
    teacher = 4 * truth + noise * samples(120, 1, seed=seed + 2)
    return x, held_out, teacher, (truth[:, 0] > 0).long(), (truth_held_out[:, 0] > 0).long()


def diagnosed(noise: float) -> object:
    x, held_out, teacher, y, y_held_out = task(noise)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = mlp(classes=1, shape=(2,), widths=(128,)).double()
    tangent = Tangent(model)
    kernel, cross = tangent.kernels(x, held_out)
    start = tangent.outputs(x), tangent.outputs(held_out)
    return difficulty(kernel, cross, start, teacher, (y, y_held_out), orders=2)


def test_a_perfect_teacher_is_to_be_followed_and_a_wrong_one_is_not() -> None:
    perfect, wrong = diagnosed(0.0), diagnosed(12.0)
    assert perfect.teacher_error == 0
    assert wrong.teacher_error > 0.1
    assert wrong.best.soft_ratio < perfect.best.soft_ratio
    assert wrong.corrected > 0.9
    by_ratio = {(c.soft_ratio, c.temperature): c for c in perfect.cells}
    assert by_ratio[1.0, 2.0].norm < by_ratio[0.5, 2.0].norm < by_ratio[0.01, 2.0].norm
    assert math.isfinite(perfect.best.inefficiency)
    assert by_ratio[0.5, 2.0].weight == pytest.approx(0.2)


def test_several_classes_are_predicted() -> None:
    model, x, held_out = network(), samples(40, 1, 6, 6), samples(30, 1, 6, 6, seed=1)
    draws = torch.Generator().manual_seed(7)
    direction = torch.randn(36, 3, generator=draws, dtype=torch.float64)
    teacher = x.flatten(1) @ direction
    y, y_held_out = teacher.argmax(1), (held_out.flatten(1) @ direction).argmax(1)
    tangent = Tangent(model)
    kernel, cross = tangent.kernels(x, held_out)
    start = tangent.outputs(x), tangent.outputs(held_out)
    found = difficulty(kernel, cross, start, teacher, (y, y_held_out), temperatures=(2.0,))
    assert found.teacher_error == 0
    assert 0 <= found.best.error < 2 / 3


def test_bad_input() -> None:
    model, x = network(), samples(4, 1, 6, 6)
    with pytest.raises(InputError, match="memory limit"):
        Tangent(model, memory=1000).kernel(x)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(InputError, match="no parameter"):
        Tangent(model)
    with pytest.raises(InputError, match="gradients are zero"):
        ridged(torch.zeros(1, 4, 4), 1e-4)
    twice = torch.ones(1, 4, 4, dtype=torch.float64)
    with pytest.raises(InputError, match="singular"):
        KernelStudent(twice, ridge=0.0)
    eye = torch.eye(10, dtype=torch.float64)[None]
    start = (torch.zeros(10, 1), torch.zeros(10, 1))
    same = torch.zeros(10, dtype=torch.long)
    with pytest.raises(InputError, match="one class"):
        difficulty(eye, eye, start, torch.ones(10, 1), (same, same))
