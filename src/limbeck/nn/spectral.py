"""Spectral layers: weights as eigenvalues times a basis, so that nodes can die in training."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.utils.parametrize as parametrize
from torch import Tensor, nn

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class SpectralGate(nn.Module):
    """weight = λ · φ, one eigenvalue λ for each output of the layer; a parametrization.

    Giambagli et al., How a student becomes a teacher (NeurIPS 2023), with the sign absorbed:
    λ = 1 and φ = weight at the start. Channels are the nodes of a convolution.

    Args:
        width: outputs of the layer.
        reference: a tensor of the dtype and device to use.
    """

    def __init__(self, width: int, reference: Tensor) -> None:
        super().__init__()
        self.eigenvalues = nn.Parameter(reference.new_ones(width))
        self.alive: Tensor
        self.register_buffer("alive", self.eigenvalues.detach().clone())

    def factor(self, basis: Tensor) -> Tensor:
        """What each entry of `basis` (width, ...) is multiplied by."""
        return (self.eigenvalues * self.alive).view(-1, *[1] * (basis.dim() - 1))

    def forward(self, basis: Tensor) -> Tensor:  # noqa: D102
        return self.factor(basis) * basis

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The basis that gives `weight` at eigenvalues of one."""
        with torch.no_grad():
            self.eigenvalues.fill_(1)
        return weight


class BipartiteGate(SpectralGate):
    """weight_ij = (λin_j − λout_i) φ_ij, the block of the adjacency matrix in the paper.

    At the start λin = 0 (frozen unless `train_in`), λout = 1 and φ = −weight.

    Args:
        width: outputs of the layer, N2.
        reference: its weight, (N2, N1, ...).
        train_in: train λin too; such a layer cannot be pruned.
    """

    def __init__(self, width: int, reference: Tensor, *, train_in: bool = False) -> None:
        super().__init__(width, reference)
        self.incoming = nn.Parameter(reference.new_zeros(reference.shape[1]), train_in)

    def factor(self, basis: Tensor) -> Tensor:  # noqa: D102
        trailing = [1] * (basis.dim() - 2)
        return self.incoming.view(1, -1, *trailing) - super().factor(basis)

    def right_inverse(self, weight: Tensor) -> Tensor:  # noqa: D102
        with torch.no_grad():
            self.eigenvalues.fill_(1)
            self.incoming.fill_(0)
        return -weight


class BiasGate(nn.Module):
    """bias = λ · b with the eigenvalues of the weight's gate; a parametrization."""

    def __init__(self, gate: SpectralGate) -> None:
        super().__init__()
        self._gate = (gate,)  # in a tuple, so that the eigenvalues are registered once

    def forward(self, bias: Tensor) -> Tensor:  # noqa: D102
        gate = self._gate[0]
        return gate.eigenvalues * gate.alive * bias

    def right_inverse(self, bias: Tensor) -> Tensor:
        """The bias itself: eigenvalues start at one."""
        return bias


def add_gate(layer: nn.Module, *, form: str = "gate", bias: str = "plain", **options: bool) -> None:
    """Give a linear layer, convolution or batch normalization eigenvalues; in place.

    Args:
        layer: the layer; of a batch normalization λ scales weight and bias.
        form: "gate", or "bipartite" for the paper's two sets of eigenvalues.
        bias: "plain", or "gated": λ scales the bias too.
        **options: of `BipartiteGate`.
    """
    norm = isinstance(layer, nn.modules.batchnorm._BatchNorm)
    weight = cast(Tensor, layer.weight).detach()
    kind = BipartiteGate if form == "bipartite" and not norm else SpectralGate
    gate = kind(len(weight), weight, **(options if kind is BipartiteGate else {}))
    parametrize.register_parametrization(layer, "weight", gate)
    if layer.bias is not None and (norm or bias == "gated"):
        parametrize.register_parametrization(layer, "bias", BiasGate(gate))


def gate_of(layer: nn.Module) -> SpectralGate | None:
    """The gate of a layer, None where it has none."""
    if not parametrize.is_parametrized(layer, "weight"):
        return None
    gate = cast(nn.ModuleDict, layer.parametrizations)["weight"][0]  # type: ignore[index]
    return gate if isinstance(gate, SpectralGate) else None


def basis_of(layer: nn.Module) -> list[Tensor]:
    """φ of a layer with a gate: of its weight, and of its bias where that is scaled too."""
    parts = cast(nn.ModuleDict, layer.parametrizations).values()
    return [cast(Tensor, part.original) for part in parts]


def gated_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers with a gate, by path."""
    return {path: layer for path, layer in model.named_modules() if gate_of(layer) is not None}


def row_scores(layer: nn.Module) -> Tensor:
    """|λ_i| ‖φ_i‖ for each output of a layer with a gate; φ_i includes a bias that λ scales."""
    gate = gate_of(layer)
    if gate is None:
        raise TypeError("the layer has no gate")
    rows = torch.cat([part.detach().reshape(len(part), -1) for part in basis_of(layer)], 1)
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1)
    return (gate.eigenvalues * gate.alive).detach().abs() * norms
