"""A role: parameters that one optimiser trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.errors import InputError
from limbeck.recipe.spec import Optimizer


class Role:
    """Trainable parameters, their optimiser, and the gradients that accumulate for its next step.

    Args:
        name: of the role, for messages.
        modules: what it trains.
        spec: its optimiser.
        nonfinite: device-side flag; once it is not zero the optimiser leaves parameters and
            its own state untouched, without asking the host.
    """

    def __init__(
        self, name: str, modules: Sequence[nn.Module], spec: Optimizer, nonfinite: Tensor
    ) -> None:
        unique = {p: None for module in modules for p in module.parameters() if p.requires_grad}
        self.parameters: list[nn.Parameter] = list(unique)
        if not self.parameters:
            raise InputError(f"the role {name!r} has no trainable parameter; unfreeze some")
        self.name = name
        self.spec = spec
        self.optimizer = _optimizer(spec, self.parameters)
        # Fused optimisers read this attribute, as they do under a gradient scaler.
        self.optimizer.found_inf = nonfinite  # type: ignore[attr-defined]
        self.pending: list[Tensor] | None = None

    def set_rate(self, factor: float) -> None:
        """Set the learning rate to `factor` times the base rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.spec.lr * factor

    def accumulate(self, gradients: Sequence[Tensor], share: float) -> list[Tensor]:
        """Add `share` times `gradients` to those that are pending, and return the sum."""
        if share == 1.0:
            self.pending = list(gradients)
        elif self.pending is None:
            self.pending = list(torch._foreach_mul(list(gradients), share))
        else:
            torch._foreach_add_(self.pending, list(gradients), alpha=share)
        return self.pending

    def step(self, gradients: Sequence[Tensor]) -> None:
        """One step of the optimiser."""
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        # The gradients stay until the next ones come: freed here, at the top of the heap, they
        # would let the allocator give the whole graph's memory back and fault it in again.
        self.optimizer.step()
        self.pending = None

    def state(self) -> dict[str, Tensor]:
        """The optimiser's tensors, under `POSITION.NAME`."""
        return {
            f"{position}.{key}": value
            for position, entry in self.optimizer.state_dict()["state"].items()
            for key, value in entry.items()
            if isinstance(value, Tensor)
        }

    def load(self, state: dict[str, Tensor]) -> None:
        """Restore what `state` returned."""
        entries: dict[int, dict[str, Any]] = {}
        for key, value in state.items():
            position, _, name = key.partition(".")
            entries.setdefault(int(position), {})[name] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": entries, "param_groups": groups})


def _optimizer(spec: Optimizer, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    common: dict[str, Any] = {"lr": spec.lr, "weight_decay": spec.weight_decay, "fused": True}
    if spec.name == "sgd":
        return torch.optim.SGD(parameters, momentum=spec.momentum, nesterov=spec.nesterov, **common)
    cls = torch.optim.Adam if spec.name == "adam" else torch.optim.AdamW
    return cls(parameters, betas=spec.betas, **common)
