"""A role: parameters that one optimiser trains."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.errors import InputError, RunError
from limbeck.recipe.spec import Optimizer

_Groups = dict[tuple[float, float], list[nn.Parameter]]


class Role:
    """Trainable parameters, their optimiser, and the gradients that accumulate for its next step.

    A module may say how its own parameters depart from the optimiser's options: in
    `optimizer_factors`, by name, the factors of the learning rate and of the weight decay.

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
        groups = _groups(modules)
        self.parameters: list[nn.Parameter] = [p for group in groups.values() for p in group]
        if not self.parameters:
            raise InputError(f"the role {name!r} has no trainable parameter; unfreeze some")
        self.name = name
        self.spec = spec
        self.pieces = pieces(self.parameters)
        self._sharded = any(
            piece is not whole for piece, whole in zip(self.pieces, self.parameters, strict=True)
        )
        self.optimizer = _optimizer(spec, self._options(groups))
        # Fused optimisers read this attribute, as they do under a gradient scaler.
        self.optimizer.found_inf = nonfinite  # type: ignore[attr-defined]
        self.pending: list[Tensor] | None = None
        self._added = 0

    def set_rate(self, factor: float) -> None:
        """Set the learning rate to `factor` times the base rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.spec.lr * factor * group["rate"]

    def _options(self, groups: _Groups) -> list[dict[str, Any]]:
        """The optimiser's groups, of the pieces in their order."""
        rest = iter(self.pieces)
        return [
            {
                "params": list(itertools.islice(rest, len(parameters))),
                "lr": self.spec.lr * rate,
                "weight_decay": self.spec.weight_decay * decay,
                "rate": rate,
            }
            for (rate, decay), parameters in groups.items()
        ]

    def fill(self, gradients: Sequence[Tensor | None]) -> list[Tensor]:
        """A dense gradient for every parameter, zero where there is none.

        Raises:
            RunError: there is none for any.
        """
        if all(gradient is None for gradient in gradients):
            raise RunError(f"the loss depends on no parameter of the role {self.name!r}")
        return [
            torch.zeros_like(piece) if gradient is None else _dense(gradient)
            for gradient, piece in zip(gradients, self.pieces, strict=True)
        ]

    def accumulate(self, gradients: list[Tensor], micro: int, micros: int) -> None:
        """Add the gradients of a micro-batch to those that are pending.

        Raises:
            RunError: this micro-batch has given some already.
        """
        if micros == 1:
            self.pending = gradients
            return
        if self._added > micro:
            raise RunError(
                f"the method updates the role {self.name!r} more than once a step, which "
                f"micro-batches cannot do; use training.accumulate: 1"
            )
        self._added = micro + 1
        if self.pending is None:
            self.pending = list(torch._foreach_mul(gradients, 1 / micros))
        else:
            torch._foreach_add_(self.pending, gradients, alpha=1 / micros)

    def step(self, clip: float | None = None) -> None:
        """One step of the optimiser with the pending gradients, their norm at most `clip`."""
        gradients = self.pending or []
        if clip is not None:
            scale = (clip / (self._norm(gradients) + 1e-6)).clamp(max=1.0)
            gradients = list(torch._foreach_mul(gradients, scale))
        for piece, gradient in zip(self.pieces, gradients, strict=True):
            piece.grad = gradient
        # The gradients stay until the next ones come: freed here, at the top of the heap, they
        # would let the allocator give the whole graph's memory back and fault it in again.
        self.optimizer.step()
        self.pending, self._added = None, 0

    def _norm(self, gradients: list[Tensor]) -> Tensor:
        """Joint norm of the gradients, over the ranks where they are sharded."""
        if self._sharded:
            from limbeck.engine.shard import norm

            return norm(gradients, self.parameters)
        norms: Tensor = torch.stack(torch._foreach_norm(gradients)).norm()
        return norms

    def state(self) -> dict[str, Tensor]:
        """The optimiser's tensors, under `POSITION.NAME`."""
        return {
            f"{position}.{key}": self._whole(value, position)
            for position, entry in self.optimizer.state_dict()["state"].items()
            for key, value in entry.items()
            if isinstance(value, Tensor)
        }

    def _whole(self, value: Tensor, position: int) -> Tensor:
        if not self._sharded:
            return value
        from limbeck.engine.shard import whole_like

        return whole_like(value, self.parameters[position])

    def _piece(self, value: Tensor, position: int) -> Tensor:
        parameter = self.parameters[position]
        if not self._sharded or value.shape != parameter.shape:
            return value
        from limbeck.engine.shard import piece, place

        return piece(place(value, parameter))

    def load(self, state: dict[str, Tensor]) -> None:
        """Restore what `state` returned."""
        entries: dict[int, dict[str, Any]] = {}
        for key, value in state.items():
            position, _, name = key.partition(".")
            entries.setdefault(int(position), {})[name] = self._piece(value, int(position))
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": entries, "param_groups": groups})


def _groups(modules: Iterable[nn.Module]) -> _Groups:
    """All trainable parameters, once each, by the factors of learning rate and weight decay."""
    found: dict[nn.Parameter, tuple[float, float]] = {}
    for part in (part for module in modules for part in module.modules()):
        own = getattr(part, "optimizer_factors", {})
        for name, parameter in part.named_parameters(recurse=False):
            if parameter.requires_grad:
                found.setdefault(parameter, own.get(name, (1.0, 1.0)))
    groups: _Groups = {(1.0, 1.0): []}
    for parameter, factors in found.items():
        groups.setdefault(factors, []).append(parameter)
    return {factors: parameters for factors, parameters in groups.items() if parameters}


def pieces(parameters: Iterable[Tensor]) -> list[Tensor]:
    """What this rank holds of each parameter: all of it, unless it is sharded."""
    parameters = list(parameters)
    if not any(hasattr(parameter, "device_mesh") for parameter in parameters):
        return parameters
    from limbeck.engine.shard import piece

    return [piece(parameter) for parameter in parameters]


def _dense(gradient: Tensor) -> Tensor:
    """A gradient that may be written to: that of a plain sum repeats one number in memory."""
    return gradient.contiguous() if 0 in gradient.stride() else gradient


def _optimizer(spec: Optimizer, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    if spec.name == "sgd":
        options: dict[str, Any] = {"momentum": spec.momentum, "nesterov": spec.nesterov}
        return torch.optim.SGD(groups, spec.lr, fused=True, **options)
    cls = torch.optim.Adam if spec.name == "adam" else torch.optim.AdamW
    return cls(groups, spec.lr, betas=spec.betas, fused=True)
