"""Weights of several gradients: the point of least norm in their capped convex hull, exactly."""

from __future__ import annotations

from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from limbeck.errors import InputError, RunError

Array = np.ndarray[Any, np.dtype[np.float64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]
G = TypeVar("G", Tensor, np.ndarray[Any, Any])

RIDGE = 2e-12
"""Beside a Gram of mean diagonal 1: of all minimisers the one closest to uniform is taken."""
SLACK = 1e-13
"""A multiplier that violates its sign by less, relative to the largest gradient, is rounding."""


def min_norm_weights(gram: G, *, tolerance: float) -> G:
    """argmin ½ αᵀGα with Σα = 1 and 0 ≤ α ≤ C: Agree to Disagree (AE-KD, NeurIPS 2020).

    Σ α_m g_m is then the common descent direction of the gradients g behind the Gram G. C = 1/M is
    the plain mean, C = 1 lets no teacher's loss rise (MGDA), between them α_m = C marks a teacher
    that is sacrificed. An active-set method in float64 finds the exact minimiser; where there are
    several, the one closest to uniform. Zero gradients get uniform weights.

    Args:
        gram: inner products [M, M] or a batch of them [B, M, M], a tensor or an array.
        tolerance: C in [1/M, 1]; above 1 it bounds nothing.

    Returns:
        Weights [M] or [B, M], of the kind, type and device of `gram`.

    Raises:
        InputError: C < 1/M, a Gram that is not square, or one that is not finite.
    """
    values = _as_array(gram)
    check_tolerance(tolerance, values.shape[-1])
    found = np.stack([_solve(one, tolerance) for one in values.reshape(-1, *values.shape[-2:])])
    weights = found.reshape(values.shape[:-1])
    if isinstance(gram, Tensor):
        return torch.from_numpy(weights).to(gram)
    return cast(G, weights.astype(gram.dtype))


def check_tolerance(tolerance: float, count: int) -> None:
    """Refuses a cap under which the weights of `count` teachers cannot sum to 1."""
    if not tolerance * count >= 1 - 1e-9:
        raise InputError(
            f"tolerance {tolerance:g} with {count} teachers leaves no solution, as no weight may "
            f"be larger: use at least {1 / count:.4g}"
        )


def _as_array(gram: Tensor | np.ndarray[Any, Any]) -> Array:
    values = np.asarray(gram.detach().cpu() if isinstance(gram, Tensor) else gram, dtype=float)
    if values.ndim not in (2, 3) or values.shape[-1] != values.shape[-2] or not values.size:
        raise InputError(
            f"the Gram of the gradients has shape {values.shape}: [M, M] or [B, M, M] is needed"
        )
    if not np.isfinite(values).all():
        norms = values.diagonal(axis1=-2, axis2=-1).reshape(-1, values.shape[-1])
        broken = np.flatnonzero(~np.isfinite(norms).all(0)).tolist()
        raise InputError(f"the gradients of teachers {broken} (counted from 0) are not finite")
    return values


def _solve(gram: Array, tolerance: float) -> Array:
    """One problem: walk from the uniform weights, which lie inside, along active sets."""
    count = len(gram)
    alpha = np.full(count, 1 / count)
    scale = np.trace(gram) / count
    if count * tolerance <= 1 + 1e-12 or scale <= np.finfo(float).tiny:
        return alpha
    matrix = gram / scale + RIDGE * np.eye(count)
    free = np.ones(count, dtype=bool)
    for _ in range(20 * count):
        if free.any() and (blocked := _advance(matrix, alpha, free, tolerance)) is not None:
            free[blocked] = False
            continue
        freed = _violators(matrix @ alpha, alpha, free)
        if not freed:
            return np.asarray(alpha / alpha.sum())
        free[freed] = True
    raise RunError("the weights of the teachers were not found")


def _advance(matrix: Array, alpha: Array, free: Mask, tolerance: float) -> int | None:
    """Move the free weights to their minimum, or to the first bound on the way; which one it is."""
    places = np.flatnonzero(free)
    count = len(places)
    system = np.ones((count + 1, count + 1))
    system[:count, :count] = matrix[np.ix_(places, places)]
    system[count, count] = 0
    slope = np.append(-(matrix @ alpha)[places], 0)
    move = np.linalg.solve(system, slope)[:count]
    bound = np.where(move < 0, 0, tolerance)
    with np.errstate(divide="ignore", invalid="ignore"):
        lengths = np.where(move == 0, np.inf, (bound - alpha[places]) / move)
    first = int(lengths.argmin())
    if lengths[first] >= 1:
        alpha[places] += move
        return None
    alpha[places] += lengths[first] * move
    alpha[places[first]] = bound[first]
    return int(places[first])


def _violators(slope: Array, alpha: Array, free: Mask) -> list[int]:
    """The weights at a bound that must be let go: the worst, or a pair where none is free."""
    low, high = ~free & (alpha == 0), ~free & (alpha != 0)
    limit = SLACK * np.abs(slope).max()
    if not free.any():
        up = int(np.where(low, slope, np.inf).argmin())
        down = int(np.where(high, slope, -np.inf).argmax())
        return [up, down] if slope[up] < slope[down] - limit else []
    level = slope[free].mean()
    excess = np.where(low, level - slope, np.where(high, slope - level, -np.inf))
    worst = int(excess.argmax())
    return [worst] if excess[worst] > limit else []
