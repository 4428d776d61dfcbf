"""Halfspaces with a margin under label noise: the perceptron that mixes its own prediction."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from limbeck.errors import InputError


def slam_perceptron(
    x: Tensor, y: Tensor, beta: Tensor | float, *, start: Tensor | None = None
) -> Tensor:
    """w ← w + (y − β(x) sign(w·x)) x over a stream, sign(0) = 1: every iterate.

    The label is noisy, E[y|x] = β(x) sign(w*·x), and β sign(w·x) is the student's prediction mixed
    with the same noise, so that a student that is right does not move on average. β = 1 is the
    perceptron. Streams that are independent of one another run side by side.
    After SLaM: Student-Label Mixing for Distillation with Unlabeled Examples (NeurIPS 2023),
    section 5; the update and its bound are our own version.

    Args:
        x: samples [..., T, D], of norm at most 1, in the order in which they come.
        y: labels of -1 and 1, [..., T].
        beta: 2 α − 1, twice the labels' accuracy minus 1, in (0, 1]: a number, or [..., T].
        start: the first w, [..., D]; None is zero.

    Returns:
        w after each sample, [..., T, D].

    Raises:
        InputError: β outside (0, 1], or shapes that do not fit.
    """
    if x.shape[:-1] != y.shape:
        raise InputError(f"x has shape {tuple(x.shape)}, y {tuple(y.shape)}: [..., T, D], [..., T]")
    strength = torch.as_tensor(beta, dtype=x.dtype).expand(y.shape)
    if not bool(((strength > 0) & (strength <= 1)).all()):
        raise InputError("beta must lie in (0, 1]: labels that are right more often than not")
    w = torch.zeros_like(x[..., 0, :]) if start is None else start
    iterates = torch.empty_like(x)
    for step in range(y.shape[-1]):
        sample = x[..., step, :]
        mixed = strength[..., step] * halfspace_sign((w * sample).sum(-1))
        w = w + (y[..., step] - mixed)[..., None] * sample
        iterates[..., step, :] = w
    return iterates


def halfspace_sign(values: Tensor) -> Tensor:
    """-1 or 1; 1 at zero."""
    return torch.where(values >= 0, 1.0, -1.0).to(values.dtype)


def halfspace_bound(steps: int, *, beta: float, margin: float) -> float:
    """Bound on the mean error of `slam_perceptron` over its first `steps` iterates.

    (β + √(β² + γ² T (1 − β²))) / (2 β γ² T): at β = 1 the perceptron's 1 / (γ² T), with noise of
    the order √(1 − β²) / (2 β γ √T). Each step adds at least 2 β γ · error to w*·w in expectation,
    while ‖w‖² grows by at most 1 − β² + 4 β² · error; Cauchy-Schwarz joins the two.

    Args:
        steps: T.
        beta: 2 α − 1, the same for every sample (or its smallest value), in (0, 1].
        margin: γ, the smallest |w*·x| at ‖w*‖ = 1, in (0, 1].
    """
    if steps < 1 or not 0 < beta <= 1 or not 0 < margin <= 1:
        raise InputError(
            f"steps {steps}, beta {beta:g} and margin {margin:g}: at least 1, and in (0, 1] twice, "
            f"are needed"
        )
    reach = margin**2 * steps
    return (beta + math.sqrt(beta**2 + reach * (1 - beta**2))) / (2 * beta * reach)
