"""Copy or average: the best small students of a teacher with orthonormal neurons.

Teacher Σ_j b_j σ(v_j·x) with k orthonormal v_j and b_j = ±1. Şimşek et al. (NeurIPS 2023); closed
forms derived anew and checked against quadrature.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from limbeck.errors import InputError


@dataclass(frozen=True)
class OneNeuron:
    """The best student of one neuron: outgoing weight a, length r of its weights, and its loss."""

    outgoing: float
    length: float
    loss: float


def one_neuron(k: int, *, activation: str = "erf") -> OneNeuron:
    """The best single neuron for `k` teacher neurons; it points along Σ b_j v_j.

    erf: a = k, r = 1/√(2k − 1), loss k/3 − (2/π) k² arcsin(1/2k). ReLU, for b_j = 1: only a·r
    counts, so that r is 1 here.

    Raises:
        InputError: k below 1, or an activation without a closed form.
    """
    if k < 1:
        raise InputError(f"a teacher has at least one neuron, not {k}")
    if activation == "erf":
        loss = k / 3 - 2 / math.pi * k**2 * math.asin(1 / (2 * k))
        return OneNeuron(k, 1 / math.sqrt(2 * k - 1), loss if k > 1 else 0.0)
    if activation == "relu":
        u = 1 / math.sqrt(k)
        overlap = (math.sqrt(1 - u * u) + (math.pi - math.acos(u)) * u) / (2 * math.pi)
        loss = k / 2 + k * (k - 1) / (2 * math.pi) - 2 * k**2 * overlap**2
        return OneNeuron(2 * k * overlap, 1.0, max(loss, 0.0))
    raise InputError(f"one neuron has a closed form for 'erf' and 'relu', not for {activation!r}")


def copy_average_loss(groups: Sequence[int]) -> float:
    """The loss of the erf student whose i-th neuron averages groups[i] neurons: Σ L*(k_i)."""
    return sum(one_neuron(size).loss for size in groups)


def best_groups(k: int, n: int) -> tuple[int, ...]:
    """n − 1 neurons copy, the last averages the rest: the best of all partitions.

    Raises:
        InputError: n outside 1 .. k; with n = k every neuron is a copy.
    """
    if not 1 <= n <= k:
        raise InputError(
            f"a copy-average student of {k} neurons has from 1 to {k} of them, not {n}"
        )
    return (*[1] * (n - 1), k - n + 1)


def partitions(k: int, n: int) -> Iterator[tuple[int, ...]]:
    """All ways to write k as n sizes, in rising order."""

    def parts(total: int, count: int, least: int) -> Iterator[tuple[int, ...]]:
        if count == 1:
            yield (total,)
            return
        for first in range(least, total // count + 1):
            yield from ((first, *rest) for rest in parts(total - first, count - 1, first))

    yield from parts(k, n, 1)


def copy_average_point(
    v: Tensor, b: Tensor, groups: Sequence[Sequence[int]]
) -> tuple[Tensor, Tensor]:
    """The erf student whose neurons average groups of the teacher's; a critical point of the loss.

    a_i = k_i and w_i = Σ_{j in G_i} b_j v_j / √(k_i (2 k_i − 1)); a group of one is a copy.

    Args:
        v: teacher neurons [k, d], orthonormal within 1e-6.
        b: ±1, [k].
        groups: which teacher neurons each student neuron stands for.

    Returns:
        a [n] and w [n, d].

    Raises:
        InputError: a teacher that is not orthonormal or has other outgoing weights.
    """
    if orthonormality_defect(v) > 1e-6 or bool((b.abs() - 1).abs().max() > 1e-6):
        raise InputError(
            f"the closed form holds for orthonormal neurons with outgoing weights of ±1; these are "
            f"{orthonormality_defect(v):.2g} from it"
        )
    rows = [
        (b[list(group)] @ v[list(group)]) / math.sqrt(len(group) * (2 * len(group) - 1))
        for group in groups
    ]
    return torch.tensor([float(len(group)) for group in groups]).to(v), torch.stack(rows)


def orthonormality_defect(v: Tensor) -> float:
    """‖V Vᵀ − I‖, the largest entry: whether the theory applies to these neurons."""
    gram = v @ v.T
    return float((gram - torch.eye(len(v), dtype=v.dtype, device=v.device)).abs().max())


def symmetric_loss(values: NDArray[np.float64], k: int, n: int) -> float:
    """The loss of n erf neurons a (α v_i + γ Σ_copied v_j + β Σ_rest v_m), one for each copied i.

    Args:
        values: a, α, β, γ.
        k: teacher neurons.
        n: student neurons.
    """
    a, alpha, beta, gamma = values
    size = 1 + alpha**2 + (k - n) * beta**2 + (n - 1) * gamma**2
    mixed = 2 * alpha * gamma + (k - n) * beta**2 + (n - 2) * gamma**2

    def own(z: float) -> float:
        return 2 / math.pi * math.asin(z / size)

    def cross(z: float) -> float:
        return 2 / math.pi * math.asin(z / math.sqrt(2 * size))

    seen = cross(alpha) + (n - 1) * cross(gamma) + (k - n) * cross(beta)
    squares = n * a**2 * own(size - 1) + n * (n - 1) * a**2 * own(mixed)
    return float(squares - 2 * a * n * seen + k / 3)


def copying_loss(k: int, n: int) -> float:
    """The smallest loss of n erf neurons that each copy one and lean towards the rest.

    The other minimum that gradient flow reaches: below the best copy-average point where n is
    close to k.
    """
    from scipy.optimize import minimize

    best_groups(k, n)
    start = np.array([1 + 0.3 * (k - n) / n, 0.9, 0.15, -0.02])
    found = minimize(
        symmetric_loss, start, (k, n), method="BFGS", options={"gtol": 1e-10, "maxiter": 2000}
    )
    polished = minimize(
        symmetric_loss,
        found.x,
        (k, n),
        method="Nelder-Mead",
        options={"xatol": 1e-10, "fatol": 1e-15, "maxiter": 4000},
    )
    return float(min(found.fun, polished.fun))


def copying_wins_from(k: int) -> int | None:
    """The first n at which copying is better than the best copy-average point; None: never."""
    for n in range(2, k):
        if copying_loss(k, n) < copy_average_loss(best_groups(k, n)) - 1e-9:
            return n
    return None
