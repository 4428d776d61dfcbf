"""Layers of several members: each is a plain layer; factors learn at a rate of their own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from limbeck.engine.role import Role
from limbeck.nn.batch_ensemble import MemberLayer, MemberNorm
from limbeck.recipe.spec import Optimizer

LAYERS = [
    (nn.Linear(6, 4), (6,)),
    (nn.Linear(6, 4, bias=False), (3, 6)),
    (nn.Conv1d(6, 4, 3, padding="same"), (6, 8)),
    (nn.Conv2d(6, 4, 3, stride=2, padding=1, groups=2), (6, 5, 7)),
    (nn.Conv2d(6, 6, 3, groups=6, bias=False), (6, 5, 5)),
    (nn.Conv3d(6, 4, 2, dilation=2), (6, 4, 4, 4)),
]


def members(layer: nn.Module, count: int = 3, std: float = 0.5) -> MemberLayer:
    return MemberLayer(layer, count, std, torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=str)
def test_every_member_is_a_plain_layer(layer: nn.Module, shape: tuple[int, ...]) -> None:
    built = members(layer)
    if built.bias is not None:
        nn.init.normal_(built.bias)
    x = torch.rand(3 * 2, *shape)
    with torch.no_grad():
        output = built(x).view(3, 2, -1)
        for number in range(3):
            plain = built.member(number)
            assert type(plain) is type(layer)
            expected = plain(x.view(3, 2, *shape)[number]).flatten(1)
            torch.testing.assert_close(output[number], expected)


def test_start() -> None:
    apart, same = members(nn.Linear(400, 300)), members(nn.Linear(400, 300), std=0.0)
    assert apart.alpha.std().item() == pytest.approx(0.5, abs=0.03)
    assert apart.gamma.mean().item() == pytest.approx(1, abs=0.05)
    assert not apart.bias.any()
    assert (same.alpha == 1).all()
    assert same.bias.any()


def test_merged_is_the_mean_of_the_factors() -> None:
    layer = nn.Linear(4, 3)
    built = members(layer, std=0.1)
    expected = layer.weight * built.alpha.mean(0) * built.gamma.mean(0)[:, None]
    torch.testing.assert_close(built.merged().weight, expected)


def test_factors_learn_at_half_the_rate_and_do_not_decay() -> None:
    built = members(nn.Linear(4, 3))
    spec = Optimizer(name="sgd", lr=0.1, momentum=0.0, weight_decay=0.01)
    role = Role("student", [built], spec, torch.zeros(()))
    assert len(role.parameters) == 4
    before = {name: parameter.detach().clone() for name, parameter in built.named_parameters()}
    role.set_rate(0.5)
    role.accumulate([torch.ones_like(parameter) for parameter in role.parameters], 0, 1)
    role.step()
    moves = {name: value.detach() - before[name] for name, value in built.named_parameters()}
    torch.testing.assert_close(moves["alpha"], torch.full((3, 4), -0.025))
    torch.testing.assert_close(moves["gamma"], torch.full((3, 3), -0.025))
    torch.testing.assert_close(moves["bias"], torch.full((3, 3), -0.05))
    assert not torch.allclose(moves["weight"], torch.full((3, 4), -0.05))


def test_a_norm_of_each_member_sees_its_own_rows() -> None:
    norm = MemberNorm(nn.BatchNorm1d(2), 2)
    x = torch.cat([torch.randn(50, 2), 5 + 3 * torch.randn(50, 2)])
    output = norm(x)
    for part in output.chunk(2):
        torch.testing.assert_close(part.mean(0), torch.zeros(2), atol=1e-5, rtol=0)
    assert norm.member(1).running_mean.mean() > 0.3
    assert norm.member(0).running_mean.abs().max() < 0.2
