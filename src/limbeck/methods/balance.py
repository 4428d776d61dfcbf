"""Loss balance: scales that make a weight mean the same for every term and pair of features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Balance(nn.Module):
    """Scales summands so that each pulls at what it reads of the student as hard as the labels do.

    The scale of a summand is a running average of ||d labels / d f|| / ||d summand / d f||, f the
    features or logits that it reads, as in GradNorm (Chen et al. 2018, arXiv:1711.02257) with all
    rates equal. It is a constant in the loss, and follows the training without asking the host.

    Args:
        count: summands.
        momentum: share of the old scale in the new one.
    """

    scales: Tensor

    def __init__(self, count: int, momentum: float = 0.9) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("scales", torch.zeros(count))

    def forward(
        self, losses: Sequence[Tensor], features: Sequence[Sequence[Tensor]], labels: Tensor
    ) -> list[Tensor]:
        """The summands, scaled.

        Args:
            losses: scalars, one a summand.
            features: the student's features or logits that each of them depends on.
            labels: the supervised loss, a scalar.
        """
        if self.training and torch.is_grad_enabled():
            ratios = [_ratio(*pair, labels) for pair in zip(losses, features, strict=True)]
            self._follow(torch.stack(ratios))
        return [scale * loss for scale, loss in zip(self.scales.clone(), losses, strict=True)]

    @torch.no_grad()
    def _follow(self, ratios: Tensor) -> None:
        moved = self.momentum * self.scales + (1 - self.momentum) * ratios
        self.scales.copy_(torch.where(self.scales > 0, moved, ratios))


def _ratio(loss: Tensor, features: Sequence[Tensor], labels: Tensor) -> Tensor:
    wanted, found = _norm(labels, features), _norm(loss, features)
    # Without a gradient on either side there is nothing to compare: the scale is one.
    return torch.where((wanted > 0) & (found > 0), wanted / found.clamp_min(1e-12), 1.0)


def _norm(loss: Tensor, features: Sequence[Tensor]) -> Tensor:
    gradients = torch.autograd.grad(loss, list(features), retain_graph=True, allow_unused=True)
    found = [gradient.float() for gradient in gradients if gradient is not None]
    if not found:
        return loss.new_zeros((), dtype=torch.float32)
    norm: Tensor = torch.stack([gradient.norm() for gradient in found]).norm()
    return norm
