"""A role's optimiser: its state survives a round trip, and its words are torch's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from limbeck.engine.role import Role
from limbeck.errors import InputError
from limbeck.recipe.spec import Optimizer

SPECS = [
    Optimizer(name="sgd", lr=0.1, nesterov=True),
    Optimizer(name="sgd", lr=0.1, momentum=0.0),
    Optimizer(name="adam", lr=0.01, betas=(0.8, 0.9)),
    Optimizer(name="adamw", lr=0.01, weight_decay=0.1),
]


def layer() -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(3, 2)


def gradients(step: int) -> list[Tensor]:
    source = torch.Generator().manual_seed(step)
    return [torch.randn(2, 3, generator=source), torch.randn(2, generator=source)]


def step(role: Role, number: int) -> None:
    role.set_rate(1.0)
    role.accumulate(gradients(number), 0, 1)
    role.step()


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_a_role_steps_as_torch_does(spec: Optimizer) -> None:
    ours, theirs = layer(), layer()
    role = Role("student", [ours], spec, torch.zeros(()))
    common = {"lr": spec.lr, "weight_decay": spec.weight_decay}
    optimizer: torch.optim.Optimizer
    if spec.name == "sgd":
        optimizer = torch.optim.SGD(
            theirs.parameters(), momentum=spec.momentum, nesterov=spec.nesterov, **common
        )
    else:
        cls = torch.optim.Adam if spec.name == "adam" else torch.optim.AdamW
        optimizer = cls(theirs.parameters(), betas=spec.betas, **common)
    for number in range(4):
        step(role, number)
        for parameter, gradient in zip(theirs.parameters(), gradients(number), strict=True):
            parameter.grad = gradient
        optimizer.step()
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_a_role_goes_on_from_its_state(spec: Optimizer) -> None:
    whole = layer()
    role = Role("student", [whole], spec, torch.zeros(()))
    for number in range(3):
        step(role, number)
    state = {key: value.clone() for key, value in role.state().items()}
    resumed = layer()
    resumed.load_state_dict(whole.state_dict())
    other = Role("student", [resumed], spec, torch.zeros(()))
    other.load(state)
    for number in range(3, 6):
        step(role, number)
        step(other, number)
    assert all(
        torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True)
    )


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_a_raised_flag_stops_every_step(spec: Optimizer) -> None:
    model, flag = layer(), torch.zeros(())
    role = Role("student", [model], spec, flag)
    step(role, 0)
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    state = {key: value.clone() for key, value in role.state().items()}
    flag.fill_(1.0)
    step(role, 1)
    assert all(torch.equal(weights[key], value) for key, value in model.state_dict().items())
    assert all(torch.equal(state[key], value) for key, value in role.state().items())


def test_shared_parameters_are_trained_once() -> None:
    shared = layer()
    assert len(Role("student", [shared, shared], Optimizer(), torch.zeros(())).parameters) == 2


def test_a_role_without_parameters_is_refused() -> None:
    frozen = layer().requires_grad_(False)
    with pytest.raises(InputError, match="'student' has no trainable parameter"):
        Role("student", [frozen], Optimizer(), torch.zeros(()))
