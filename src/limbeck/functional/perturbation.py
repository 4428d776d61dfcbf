"""Inputs on which an ensemble disagrees: steps along which a teacher's outputs spread (ODS)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from limbeck.functional._common import check_positive, check_tensor

FLAT = 1e-12
"""A shorter gradient points nowhere: the teacher is flat there, or has no doubt at all."""


@dataclass(frozen=True)
class Spread:
    """Where a teacher's outputs change most along given directions.

    Attributes:
        direction: unit vectors over all elements of a sample, [B, ...]; 0 where it is flat.
        confidence: the teacher's largest probability, [B].
        norm: length of the gradient behind `direction`, [B].
        flat: samples that have no direction, bool [B].
    """

    direction: Tensor
    confidence: Tensor
    norm: Tensor
    flat: Tensor


def output_spread(
    teacher: Callable[[Tensor], Tensor],
    x: Tensor,
    weights: Tensor,
    *,
    temperature: float = 1.0,
) -> Spread:
    """u = ∇ₓ⟨w, softmax(z(x)/T)⟩ / ‖·‖: output diversified sampling (ODS).

    Diversity Matters When Learning From Ensembles (NeurIPS 2021); ODS: Tashiro et al. (2020).
    cs-giung/giung2@c8560fd:projects/Diversity-Matters. There a teacher whose largest probability
    rounds to 1 gives no direction; here the cotangent of the logits is formed without rounding and
    scaled before the backward pass, so that a direction is lost below a gradient of 1e-12 only.

    Args:
        teacher: inputs to logits [B, K], differentiable.
        x: inputs [B, ...], a floating point tensor.
        weights: w, [B, K], drawn from U(−1, 1).
        temperature: T > 0.
    """
    check_tensor(x, "inputs")
    check_positive(temperature=temperature)
    with torch.enable_grad():
        inputs = x.detach().requires_grad_()
        logits = teacher(inputs)
        log_p = (logits.detach() / temperature).log_softmax(-1)
        cotangent, scale = _cotangent(log_p, weights)
        (gradient,) = torch.autograd.grad(logits, inputs, cotangent.to(logits), allow_unused=True)
    gradient = torch.zeros_like(x) if gradient is None else gradient
    length = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
    norm = length * scale / temperature
    flat = norm < FLAT
    direction = gradient / _like(torch.where(flat, torch.inf, length), x)
    return Spread(direction, log_p.exp().amax(-1), torch.where(flat, 0.0, norm), flat)


def _cotangent(log_p: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """p ∘ (w − ⟨w, p⟩) over a scale of each sample, and that scale.

    Entries sum to 0, so that of the largest probability is minus the sum of the others: no
    difference of nearly equal numbers is taken.
    """
    top = log_p.argmax(-1, keepdim=True)
    others = log_p.scatter(-1, top, -torch.inf)
    scale = others.amax(-1, keepdim=True)
    weighted = (others - scale).exp() * (weights - (weights * log_p.exp()).sum(-1, keepdim=True))
    cotangent = weighted.scatter(-1, top, -weighted.sum(-1, keepdim=True))
    return cotangent, scale.exp().squeeze(-1)


def diversify(
    x: Tensor,
    spread: Spread,
    *,
    step: float = 1.0,
    confident: bool = True,
    unit: float = 1 / 255,
    bounds: tuple[float, float] | None = (0.0, 1.0),
) -> Tensor:
    """x + step · unit · √D · u, times the teacher's confidence (ConfODS) where `confident`.

    So `step` is the change's root mean square an element, in units: for images in [0, 1], in grey
    levels.

    Args:
        x: inputs [B, ...] of D elements a sample.
        spread: of a teacher at `x`, from `output_spread`.
        step: η.
        confident: move a sample by its confidence times that; False is plain ODS.
        unit: of the inputs' scale.
        bounds: the result is clipped to them; None: not at all.
    """
    moved = step * unit * math.sqrt(x[0].numel()) * spread.direction
    if confident:
        moved = moved * _like(spread.confidence, x)
    return x + moved if bounds is None else (x + moved).clamp(*bounds)


def _like(values: Tensor, x: Tensor) -> Tensor:
    """One value a sample, shaped to multiply `x`."""
    return values.view(-1, *[1] * (x.dim() - 1))
