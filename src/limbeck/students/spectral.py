"""Spectral students: eigenvalues on the layers of a network, their penalty, scores and masks."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.utils.parametrize as parametrize
from torch import Tensor, nn

from limbeck.errors import InputError, nearest
from limbeck.nn.spectral import (
    BipartiteGate,
    SpectralGate,
    add_gate,
    basis_of,
    gate_of,
    gated_layers,
    row_scores,
)
from limbeck.students.flow import Group, node_groups


def spectralize(
    model: nn.Module,
    layers: Sequence[str] | None = None,
    *,
    form: Literal["gate", "bipartite"] = "gate",
    bias: Literal["plain", "gated"] = "plain",
    train_in: bool = False,
) -> nn.Module:
    """A copy of `model` whose hidden nodes have eigenvalues; it computes the same function.

    Each weight becomes λ · φ with λ = 1. Trained with `SpectralPenalty`, λ of nodes that the task
    does not need goes to zero, which `find_width` reads and `export_dense` cuts. Where a batch
    normalization follows, λ scales its weight and bias instead, since it would undo any scale of
    the layer before it. Giambagli et al., How a student becomes a teacher (NeurIPS 2023).

    Args:
        model: any network whose graph torch.fx can read.
        layers: paths of linear layers or convolutions; None: all whose nodes can be cut.
        form: "gate", or "bipartite" for the paper's λin − λout.
        bias: "gated" scales the bias with the weight, so that a dead node sends act(0).
        train_in: of the bipartite form: train λin too; such layers cannot be cut.

    Raises:
        InputError: a path with no nodes to cut, a layer that has a parametrization already, or
            weights that are not finite.
    """
    _check_choice("form", form, ("gate", "bipartite"))
    _check_choice("bias", bias, ("plain", "gated"))
    student = copy.deepcopy(model)
    modules = dict(student.named_modules())
    for group in _selected(node_groups(student), layers):
        for slot in group.gates:
            _check_layer(slot.path, modules[slot.path])
            options = {"train_in": train_in} if form == "bipartite" else {}
            add_gate(modules[slot.path], form=form, bias=bias, **options)
    return student


def _check_choice(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise InputError(f"{name} is {value!r}: it must be one of {', '.join(map(repr, known))}")


def _selected(groups: Sequence[Group], layers: Sequence[str] | None) -> list[Group]:
    if layers is None:
        chosen = [group for group in groups if not group.obstacle]
        if not chosen:
            reasons = "; ".join(f"{group.name}: {group.obstacle}" for group in groups[:3])
            raise InputError(
                f"no layer has hidden nodes that can be cut ({reasons or 'no layers'})"
            )
        return chosen
    by_path = {slot.path: group for group in groups for slot in group.producers}
    chosen = []
    for path in layers:
        if path not in by_path:
            raise InputError(
                f"{path!r} is no linear layer or convolution of the model"
                f"{nearest(path, by_path)}; there are {', '.join(by_path)}"
            )
        group = by_path[path]
        if group.obstacle == "it is the output of the model":
            warnings.warn(f"{path} is the output layer: its eigenvalues scale logits", stacklevel=3)
        elif group.obstacle:
            raise InputError(f"the nodes of {path!r} cannot be cut: {group.obstacle}")
        if group not in chosen:
            chosen.append(group)
    return chosen


def _check_layer(path: str, layer: nn.Module) -> None:
    if parametrize.is_parametrized(layer) or hasattr(layer, "weight_g"):
        raise InputError(
            f"{path!r} has a parametrization already (weight_norm, spectral_norm or another "
            f"spectralize): remove it first"
        )
    if not all(bool(torch.isfinite(one).all()) for one in layer.parameters()):
        raise InputError(f"the weights of {path!r} are not all finite numbers")


@dataclass(frozen=True)
class SpectralPenalty:
    """μφ Σ‖φ‖² + μλ Σλ² over all layers with eigenvalues, in float32 or better.

    At its minimum over λ φ = w it is the group lasso 2 √(μφ μλ) Σ‖w_i‖. The defaults are the
    paper's, for a mean squared error on targets of variance near 1; cross-entropy needs far less.
    The penalty belongs into the loss: decoupled weight decay has another fixed point.

    Args:
        mu_phi: of the bases.
        mu_lambda: of the eigenvalues.
    """

    mu_phi: float = 1e-2
    mu_lambda: float = 5e-4

    def __post_init__(self) -> None:
        if not (self.mu_phi >= 0 and self.mu_lambda >= 0):
            raise InputError(
                f"mu_phi is {self.mu_phi} and mu_lambda {self.mu_lambda}: both must be 0 or more"
            )

    def __call__(self, model: nn.Module) -> Tensor:
        """The penalty of a spectral model, a scalar.

        Raises:
            InputError: the model has no eigenvalues.
        """
        layers = gated_layers(model)
        if not layers:
            raise InputError("the model has no eigenvalues: call limbeck.students.spectralize")
        total = torch.zeros(())
        for layer in layers.values():
            gate = _gate(layer)
            bases = sum(_square(part) for part in basis_of(layer))
            total = total.to(gate.eigenvalues.device) + (
                self.mu_phi * bases + self.mu_lambda * _square(gate.eigenvalues)
            )
        return total

    @property
    def strength(self) -> float:
        """τ = 2 √(μφ μλ), the weight of the group lasso."""
        return 2 * math.sqrt(self.mu_phi * self.mu_lambda)

    def least(self, norms: Tensor) -> Tensor:
        """The smallest penalty of nodes whose weights have these norms: τ ‖w‖."""
        return self.strength * norms

    def balanced(self, norms: Tensor) -> Tensor:
        """|λ| where it is reached: (μφ / μλ)^¼ √‖w‖."""
        scale: float = (self.mu_phi / self.mu_lambda) ** 0.25
        return scale * norms.sqrt()


def _square(tensor: Tensor) -> Tensor:
    wide = tensor if tensor.dtype == torch.float64 else tensor.float()
    total: Tensor = wide.square().sum()
    return total


def _gate(layer: nn.Module) -> SpectralGate:
    gate = gate_of(layer)
    if gate is None:
        raise InputError(f"{type(layer).__name__} has no eigenvalues")
    return gate


def spectral_groups(model: nn.Module) -> list[Group]:
    """The groups of a spectral model that have eigenvalues and can be cut.

    Raises:
        InputError: there is none, or trainable λin stand in the way.
    """
    gated = gated_layers(model)
    for path, layer in gated.items():
        gate = _gate(layer)
        if isinstance(gate, BipartiteGate) and (
            gate.incoming.requires_grad or bool(gate.incoming.any())
        ):
            raise InputError(
                f"{path!r} has eigenvalues of its inputs (train_in): λout = 0 does not silence its "
                f"nodes, so they can be neither scored nor cut"
            )
    groups = [
        group
        for group in node_groups(model)
        if not group.obstacle and all(slot.path in gated for slot in group.gates)
    ]
    if not groups:
        raise InputError("no nodes with eigenvalues can be cut: call limbeck.students.spectralize")
    return groups


def node_scores(model: nn.Module) -> dict[str, Tensor]:
    """|λ_i| ‖φ_i‖ of every node, by the first layer of its group; tied layers add in squares.

    Raises:
        InputError: no eigenvalues, or scores that are not finite.
    """
    layers = dict(model.named_modules())
    scores = {}
    for group in spectral_groups(model):
        squares = torch.zeros(group.width)
        for slot in group.gates:
            rows = row_scores(layers[slot.path]).cpu().square()
            squares = squares + rows.view(slot.parts, group.width, slot.unit).sum((0, 2))
        if not bool(torch.isfinite(squares).all()):
            raise InputError(f"the scores of {group.name!r} are not finite: the training diverged")
        scores[group.name] = squares.sqrt()
    return scores


def alive_nodes(model: nn.Module, threshold: float = 0.05) -> dict[str, Tensor]:
    """Which nodes have a score above that share of their layer's largest; boolean, by layer.

    Nodes of equal score stay or go together. Where all scores of a layer are zero, or the
    threshold is 1 or more, its best node stays, with a warning.

    Raises:
        InputError: a negative threshold.
    """
    if not threshold >= 0:
        raise InputError(f"threshold is {threshold}: a share of the largest score, 0 or more")
    alive = {}
    for path, scores in node_scores(model).items():
        kept = scores > threshold * scores.max()
        if not kept.any():
            reason = (
                "has collapsed: lower mu" if not scores.any() else "loses all at this threshold"
            )
            warnings.warn(f"{path} {reason}; its best node stays", stacklevel=2)
            kept[scores.argmax()] = True
        alive[path] = kept
    return alive


def keep_share(scores: Mapping[str, Tensor], percent: float) -> dict[str, Tensor]:
    """What is left when that percentage of all nodes goes, smallest first over all layers.

    Args:
        scores: by layer, such as `node_scores` or the absolute eigenvalues.
        percent: of all nodes, in [0, 100]; numbers between 0 and 1 are refused as ambiguous.
    """
    if not 0 <= percent <= 100 or 0 < percent < 1:
        raise InputError(
            f"percent is {percent}: a number from 0 to 100, such as 30 for thirty percent; "
            f"fractions are refused, for they read as either"
        )
    flat = torch.cat(list(scores.values()))
    kept = torch.ones(len(flat), dtype=torch.bool)
    kept[flat.argsort(stable=True)[: round(percent / 100 * len(flat))]] = False
    parts = torch.split(kept, [len(one) for one in scores.values()])
    return dict(zip(scores, parts, strict=True))


def mask_nodes(model: nn.Module, alive: Mapping[str, Tensor]) -> None:
    """Silence every node that is not in `alive`; in place, and kept in the state dict."""
    layers = dict(model.named_modules())
    for group in spectral_groups(model):
        if group.name not in alive:
            continue
        kept = alive[group.name]
        if kept.shape != (group.width,):
            raise InputError(f"{group.name!r} has {group.width} nodes, got {tuple(kept.shape)}")
        for slot in group.gates:
            gate = _gate(layers[slot.path])
            gate.alive.copy_(slot.spread(kept).to(gate.alive))


@contextmanager
def masked(model: nn.Module, alive: Mapping[str, Tensor]) -> Iterator[None]:
    """`mask_nodes` for a while, in evaluation mode."""
    gates = [_gate(layer) for layer in gated_layers(model).values()]
    before, training = [gate.alive.clone() for gate in gates], model.training
    try:
        mask_nodes(model.eval(), alive)
        yield
    finally:
        model.train(training)
        for gate, mask in zip(gates, before, strict=True):
            gate.alive.copy_(mask)


def unmasked(model: nn.Module) -> dict[str, Tensor]:
    """The nodes that no mask silences, by layer."""
    layers = dict(model.named_modules())
    alive = {}
    for group in spectral_groups(model):
        rows = [
            _gate(layers[slot.path]).alive.cpu().view(slot.parts, group.width, slot.unit).bool()
            for slot in group.gates
        ]
        alive[group.name] = torch.stack([row.any(0).any(-1) for row in rows]).any(0)
    return alive
