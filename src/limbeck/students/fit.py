"""A short training of a student on stored targets, for measuring: Adam, cosine, one penalty."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as tf
from torch import Tensor, nn

from limbeck.data.random import generator
from limbeck.errors import InputError, RunError
from limbeck.nn.forward import as_record


def fit_targets(
    model: nn.Module,
    x: Tensor,
    targets: Tensor,
    *,
    penalty: Callable[[nn.Module], Tensor] | None = None,
    epochs: int = 20,
    batch: int = 200,
    lr: float = 5e-3,
    noise: float = 0.0,
    last_lr: float = 0.01,
    seed: int = 0,
    on_epoch: Callable[[int], None] | None = None,
) -> nn.Module:
    """Train `model`, in place, to the mean squared error of its outputs from `targets`.

    The step size falls along a cosine, which is what brings eigenvalues of dead nodes to zero.

    Args:
        model: returns outputs of the shape of the targets; left in evaluation mode.
        x: samples as the model takes them, [N, ...].
        targets: [N, C].
        penalty: added to the loss of every batch, such as `SpectralPenalty`.
        epochs: passes over the samples.
        batch: samples a step.
        lr: first step size.
        noise: standard deviation of what is added to the samples.
        last_lr: share of `lr` at the end; 1 keeps it constant.
        seed: of the order and the noise.
        on_epoch: told of every epoch's end.

    Raises:
        InputError: no samples, or targets of another count.
        RunError: the loss became infinite or no number.
    """
    if not len(x) or len(x) != len(targets):
        raise InputError(f"{len(x)} samples and {len(targets)} targets: the same number is needed")
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr, fused=True)
    steps, step = epochs * math.ceil(len(x) / batch), 0
    draws = generator(seed, "fit")
    model.train()
    loss = torch.zeros(())
    for epoch in range(epochs):
        order = torch.randperm(len(x), generator=draws).to(x.device)
        for rows in torch.split(order, batch):
            share = 0.5 * (1 + math.cos(math.pi * step / steps))
            optimizer.param_groups[0]["lr"] = lr * (last_lr + (1 - last_lr) * share)
            inputs = x[rows]
            if noise:
                inputs = inputs + noise * torch.randn(inputs.shape, generator=draws).to(inputs)
            loss = tf.mse_loss(as_record(model(inputs))["logits"], targets[rows])
            if penalty is not None:
                loss = loss + penalty(model)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            step += 1
        if on_epoch is not None:
            on_epoch(epoch)
    if not bool(torch.isfinite(loss)):
        raise RunError("the loss of the short training is not finite: lower lr")
    return model.eval()
