"""Layers of a batch ensemble: one weight that its members share, scaled by each on both sides."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from limbeck.functional.batch_ensemble import batch_ensemble_conv, batch_ensemble_linear

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d


class MemberLayer(nn.Module):
    """A linear layer or a convolution of M members: W_m = W ∘ γ_m α_mᵀ, with biases of their own.

    BatchEnsemble (Wen, Tran and Ba, ICLR 2020); cs-giung/giung2@c8560fd:giung2/layers.

    Args:
        layer: whose weight the members share, a linear layer or a convolution.
        members: M.
        init_std: of the factors around 1; with 0 the members start as `layer` itself.
        generator: draws the factors.

    Shape:
        (M · B, ...) to the same, as `layer`; all samples of the first member first.
    """

    optimizer_factors: ClassVar[Mapping[str, tuple[float, float]]] = {
        "alpha": (0.5, 0.0),
        "gamma": (0.5, 0.0),
    }
    """The factors learn at half the rate and without weight decay, as published."""

    def __init__(
        self,
        layer: nn.Linear | Convolution,
        members: int,
        init_std: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        # Not a sub-module: what it computes stands in `forward`, its weight below.
        self.plain = (copy.deepcopy(layer).requires_grad_(False).to("meta"),)
        self.weight = layer.weight
        outputs, inputs = layer.weight.shape[0], layer.weight.shape[1] * _groups(layer)
        self.alpha = _factors(members, inputs, init_std, generator, layer.weight)
        self.gamma = _factors(members, outputs, init_std, generator, layer.weight)
        self.bias = None
        if layer.bias is not None:
            bias = layer.bias.detach() if init_std == 0 else torch.zeros_like(layer.bias)
            self.bias = nn.Parameter(bias.expand(members, -1).clone())

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        layer = self.plain[0]
        if isinstance(layer, nn.Linear):
            return batch_ensemble_linear(x, self.weight, self.alpha, self.gamma, self.bias)
        return batch_ensemble_conv(
            x,
            self.weight,
            self.alpha,
            self.gamma,
            self.bias,
            stride=layer.stride,
            padding=layer.padding,
            dilation=layer.dilation,
            groups=layer.groups,
        )

    def member(self, number: int) -> nn.Module:
        """One member as a plain layer."""
        bias = None if self.bias is None else self.bias[number]
        return self._dense(self.alpha[number], self.gamma[number], bias)

    def merged(self) -> nn.Module:
        """The plain layer of the members' mean factors and biases."""
        bias = None if self.bias is None else self.bias.mean(0)
        return self._dense(self.alpha.mean(0), self.gamma.mean(0), bias)

    def _dense(self, alpha: Tensor, gamma: Tensor, bias: Tensor | None) -> nn.Module:
        layer = copy.deepcopy(self.plain[0])
        axes = (1,) * (self.weight.dim() - 2)
        inputs = alpha.view(_groups(layer), 1, -1, *axes)
        grouped = self.weight.view(_groups(layer), -1, *self.weight.shape[1:])
        weight = (grouped * inputs).view_as(self.weight) * gamma.view(-1, 1, *axes)
        layer.weight = nn.Parameter(weight.detach().clone())
        if bias is not None:
            layer.bias = nn.Parameter(bias.detach().clone())
        return layer


def _groups(layer: nn.Linear | Convolution) -> int:
    return 1 if isinstance(layer, nn.Linear) else layer.groups


def _factors(
    members: int, width: int, std: float, generator: torch.Generator, like: Tensor
) -> nn.Parameter:
    drawn = 1 + std * torch.randn(members, width, generator=generator)
    return nn.Parameter(drawn.to(like))


class MemberNorm(nn.Module):
    """A normalization of its own for each of M members.

    Args:
        norm: copied for each member.
        members: M.

    Shape:
        (M · B, ...) to the same; all samples of the first member first.
    """

    def __init__(self, norm: nn.Module, members: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(copy.deepcopy(norm) for _ in range(members))

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        parts = x.chunk(len(self.norms))
        return torch.cat([norm(part) for norm, part in zip(self.norms, parts, strict=True)])

    def member(self, number: int) -> nn.Module:
        """The normalization of one member."""
        return copy.deepcopy(self.norms[number])
