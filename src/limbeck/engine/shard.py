"""Sharded parameters: each rank holds a piece of every tensor of the student.

Optimisers work element by element, so each rank's runs on its own pieces as plain tensors; only
forward, backward and checkpoints see whole ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def shard(module: nn.Module) -> None:
    """Split the parameters of `module` over the ranks; they are whole during a pass only."""
    fully_shard(module, reshard_after_forward=True)


def piece(tensor: Tensor) -> Tensor:
    """This rank's part of a sharded tensor, in the same memory; any other tensor as it is."""
    return tensor.to_local().detach() if isinstance(tensor, DTensor) else tensor


def whole(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Sharded tensors made whole; a collective call where there are any."""
    return {
        key: value.full_tensor() if isinstance(value, DTensor) else value
        for key, value in state.items()
    }


def whole_like(value: Tensor, parameter: Tensor) -> Tensor:
    """A piece that belongs to a sharded parameter, as its moments do, made whole."""
    if not isinstance(parameter, DTensor) or value.shape != piece(parameter).shape:
        return value
    return DTensor.from_local(
        value,
        parameter.device_mesh,
        parameter.placements,
        shape=parameter.shape,
        stride=parameter.stride(),
    ).full_tensor()


def place(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor sharded over the ranks as `like` is."""
    if not isinstance(like, DTensor):
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)


def gradients(
    loss: Tensor, parameters: Sequence[nn.Parameter], others: Sequence[nn.Parameter]
) -> list[Tensor | None]:
    """This rank's pieces of the gradient of `loss`, averaged already where sharded.

    Sharding knows `backward` alone, which fills every parameter of the graph; those of other
    roles are put back.

    Args:
        loss: a scalar.
        parameters: whose gradient is wanted.
        others: parameters that must not be touched.
    """
    held = [parameter.grad for parameter in others]
    for parameter in parameters:
        parameter.grad = None
    loss.backward()  # type: ignore[no-untyped-call]
    found = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    for parameter, gradient in zip(others, held, strict=True):
        parameter.grad = gradient
    return [None if gradient is None else piece(gradient) for gradient in found]


def norm(gradients: Sequence[Tensor], parameters: Sequence[nn.Parameter]) -> Tensor:
    """Norm of a gradient whose pieces lie on several ranks, in those of its sharded parameters."""
    zero = torch.zeros((), dtype=torch.float64, device=gradients[0].device)
    split, own = zero.clone(), zero
    for gradient, parameter in zip(gradients, parameters, strict=True):
        square = gradient.double().square().sum()
        if isinstance(parameter, DTensor):
            split = split + square
        else:
            own = own + square
    torch.distributed.all_reduce(split)
    return (split + own).sqrt().float()
