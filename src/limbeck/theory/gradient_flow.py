"""Gradient flow of a small student on the exact population loss, and where it ends."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from limbeck.data.random import generator
from limbeck.theory.copy_average import best_groups, copy_average_loss
from limbeck.theory.population import population_loss

Array = NDArray[np.float64]


@dataclass(frozen=True)
class EndState:
    """Where a flow ended.

    Attributes:
        a: outgoing weights, [n].
        w: incoming weights, [n, d].
        loss: the population loss.
        gradient: the largest entry of its gradient.
        kind: "copy-average": the best such loss within 1e-5; "copy": every neuron has a teacher
            neuron at a cosine above 0.95; else "other".
    """

    a: Tensor
    w: Tensor
    loss: float
    gradient: float
    kind: Literal["copy-average", "copy", "other"]


def gradient_flow(
    k: int, n: int, *, seed: int = 0, activation: str = "erf", time: float = 2000.0
) -> EndState:
    """Flow from a Glorot-normal start to a critical point: LSODA, then BFGS.

    The teacher has k orthonormal neurons in k + 1 dimensions and outgoing weights of 1.

    Args:
        k: teacher neurons.
        n: student neurons, 1 to k.
        seed: of the start.
        activation: see `population_loss`.
        time: how long to flow before BFGS takes over.
    """
    from scipy.integrate import solve_ivp
    from scipy.optimize import minimize

    best_groups(k, n)
    dimensions = k + 1
    v, b = torch.eye(k, dimensions, dtype=torch.float64), torch.ones(k, dtype=torch.float64)

    def value_and_gradient(point: Array) -> tuple[float, Array]:
        tensor = torch.tensor(point, requires_grad=True)
        a, w = tensor[:n], tensor[n:].view(n, dimensions)
        loss = population_loss(a, w, b, v, activation=activation)
        (gradient,) = torch.autograd.grad(loss, tensor)
        return float(loss.detach()), gradient.numpy()

    draws = generator(seed, "flow", k, n)
    w0 = torch.randn(n, dimensions, generator=draws, dtype=torch.float64)
    a0 = torch.randn(n, generator=draws, dtype=torch.float64)
    start = torch.cat(
        [a0 * math.sqrt(2 / (n + 1)), (w0 * math.sqrt(2 / (n + dimensions))).flatten()]
    )
    flow = solve_ivp(
        lambda _, point: -value_and_gradient(point)[1],
        (0.0, time),
        start.numpy(),
        method="LSODA",
        rtol=1e-6,
        t_eval=[time],
    )
    end = minimize(
        value_and_gradient,
        flow.y[:, -1],
        jac=True,
        method="BFGS",
        options={"gtol": 1e-9, "maxiter": 5000},
    )
    point = torch.from_numpy(end.x)
    a, w = point[:n], point[n:].view(n, dimensions)
    kind = _classify(float(end.fun), w, k, n)
    return EndState(a, w, float(end.fun), float(np.abs(end.jac).max()), kind)


def _classify(loss: float, w: Tensor, k: int, n: int) -> Literal["copy-average", "copy", "other"]:
    if abs(loss - copy_average_loss(best_groups(k, n))) < 1e-5:
        return "copy-average"
    return "copy" if bool((best_cosines(w, k) > 0.95).all()) else "other"


def best_cosines(w: Tensor, k: int) -> Tensor:
    """The largest |cosine| of each student neuron with one of the k teacher neurons."""
    cosines: Tensor = w[:, :k] / w.norm(dim=1, keepdim=True)
    return cosines.abs().amax(1)


def phase_table(
    k: int, widths: list[int] | None = None, *, seeds: int = 5
) -> list[dict[str, float]]:
    """For each student width, the share of starts that end at copy-average and at copies.

    Returns:
        Rows with `n`, `copy_average`, `copy`, `other` (shares) and `loss` (the smallest).
    """
    rows = []
    for n in widths or range(1, k + 1):
        ends = [gradient_flow(k, n, seed=seed) for seed in range(seeds)]
        shares = {
            kind.replace("-", "_"): sum(end.kind == kind for end in ends) / seeds
            for kind in ("copy-average", "copy", "other")
        }
        rows.append({"n": n, **shares, "loss": min(end.loss for end in ends)})
    return rows
