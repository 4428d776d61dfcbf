"""Copy or average: exact losses, critical points, and where gradient flow ends."""

from __future__ import annotations

import pytest
import torch

from limbeck.errors import InputError
from limbeck.theory import (
    best_groups,
    copy_average_loss,
    copy_average_point,
    copying_loss,
    copying_wins_from,
    gradient_flow,
    interactions,
    one_neuron,
    partitions,
    phase_table,
    population_loss,
)


def teacher(k: int, d: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.ones(k, dtype=torch.float64), torch.eye(k, d or k, dtype=torch.float64)


def runs(sizes: tuple[int, ...]) -> list[list[int]]:
    """Consecutive neurons in groups of these sizes."""
    ends = torch.tensor(sizes).cumsum(0).tolist()
    return [list(range(end - size, end)) for size, end in zip(sizes, ends, strict=True)]


@pytest.mark.parametrize("activation", ["erf", "relu"])
def test_gradients_are_those_of_finite_differences(activation: str) -> None:
    draws = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 3, generator=draws, dtype=torch.float64)
    w, v = torch.randn(2, 3, 4, generator=draws, dtype=torch.float64)
    a.requires_grad_(), w.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda a, w: population_loss(a, w, b, v, activation=activation), (a, w), atol=1e-7
    )


def test_smooth_activations_have_gradients_too() -> None:
    b, v = teacher(2)
    w = (0.7 * v).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda w: population_loss(b, w, b, v, activation="tanh"), (w,), atol=1e-6
    )


def test_the_gradient_of_relu_copies_is_finite_and_zero() -> None:
    b, v = teacher(3)
    w = v.clone().requires_grad_()
    loss = population_loss(b, w, b, v, activation="relu")
    (gradient,) = torch.autograd.grad(loss, w)
    assert abs(float(loss.detach())) < 1e-14
    assert gradient.abs().max() < 1e-14


@pytest.mark.parametrize("n", [1, 2, 3, 5, 6])
def test_every_copy_average_point_is_critical(n: int) -> None:
    b, v = teacher(6)
    b[2] = -1
    for sizes in partitions(6, n):
        a, w = copy_average_point(v, b, runs(sizes))
        a.requires_grad_(), w.requires_grad_()
        loss = population_loss(a, w, b, v)
        assert float(loss.detach()) == pytest.approx(copy_average_loss(sizes), abs=1e-12)
        assert all(g.abs().max() < 1e-10 for g in torch.autograd.grad(loss, (a, w)))


def test_the_best_partition_copies_all_but_one() -> None:
    for n in range(1, 9):
        assert min(partitions(8, n), key=copy_average_loss) == best_groups(8, n)


def test_one_neuron_is_the_best_of_its_direction() -> None:
    for k in (1, 4, 20):
        best = one_neuron(k)
        b, v = teacher(k)
        direction = torch.ones(1, k, dtype=torch.float64) / k**0.5
        for length in (0.9, 1.0, 1.1):
            inner = interactions(torch.cat([length * best.length * direction, v]))
            a = inner[0, 1:].sum() / inner[0, 0]  # the best outgoing weight at this length
            loss = population_loss(a[None], length * best.length * direction, b, v)
            assert float(loss) >= best.loss - 1e-12
            if length == 1:
                assert float(a) == pytest.approx(best.outgoing)
                assert float(loss) == pytest.approx(best.loss, abs=1e-10)


def test_where_copying_wins() -> None:
    assert [copying_wins_from(k) for k in (5, 6, 7, 8)] == [None, 5, 6, 7]
    assert copying_loss(6, 5) == pytest.approx(0.02228060, abs=1e-8)


def test_a_copy_average_minimum_and_a_saddle() -> None:
    b, v = teacher(6)

    def lowest(sizes: tuple[int, ...]) -> float:
        a, w = copy_average_point(v, b, runs(sizes))
        point = torch.cat([a, w.flatten()])
        hessian = torch.autograd.functional.hessian(
            lambda x: population_loss(x[:3], x[3:].view(3, 6), b, v), point
        )
        return float(torch.linalg.eigvalsh(hessian)[0])

    assert lowest((1, 1, 4)) > 0
    assert lowest((2, 2, 2)) < -0.01


def test_gradient_flow_ends_at_the_copy_average_point() -> None:
    end = gradient_flow(4, 2, seed=1)
    assert end.kind == "copy-average"
    assert end.loss == pytest.approx(copy_average_loss((1, 3)), abs=1e-7)
    rows = phase_table(3, [2, 3], seeds=1)
    assert rows[0]["n"] == 2
    assert rows[0]["copy_average"] == 1.0
    assert rows[1]["loss"] == pytest.approx(0, abs=1e-7)


def test_bad_input() -> None:
    b, v = teacher(3)
    with pytest.raises(InputError, match="length zero"):
        population_loss(b, 0 * v, b, v, activation="relu")
    with pytest.raises(InputError, match="did you mean 'tanh'"):
        population_loss(b, v, b, v, activation="tahn")
    with pytest.raises(InputError, match=r"\[n, d\]"):
        population_loss(b[:2], v, b, v)
    with pytest.raises(InputError, match="orthonormal"):
        copy_average_point(2 * v, b, [[0, 1, 2]])
    for call in (lambda: best_groups(3, 4), lambda: one_neuron(0)):
        with pytest.raises(InputError):
            call()
    with pytest.raises(InputError, match="closed form"):
        one_neuron(2, activation="tanh")
