"""Two-layer networks on Gaussian inputs: the population loss of a student, without sampling.

Student Σ a_i σ(w_i·x), teacher Σ b_j σ(v_j·x), x ~ N(0, I), no biases, no factor ½. Şimşek et al.,
Should Under-parameterized Student Networks Copy or Average Teacher Weights? (NeurIPS 2023).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as tf
from torch import Tensor

from limbeck.errors import InputError, nearest

NODES, REACH = 320, 9.0
"""Gauss-Legendre nodes on [−9, 9] in each direction, for activations without a closed form."""

SMOOTH: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "softplus": tf.softplus,
    "sigmoid": torch.sigmoid,
    "gelu": tf.gelu,
}


def population_loss(
    a: Tensor, w: Tensor, b: Tensor, v: Tensor, *, activation: str = "erf"
) -> Tensor:
    """E (student − teacher)² over standard Gaussian inputs; differentiable in every argument.

    Args:
        a: outgoing weights of the student, [n]; float64 throughout.
        w: its incoming weights, [n, d].
        b: outgoing weights of the teacher, [k].
        v: its incoming weights, [k, d].
        activation: "erf" (erf(x/√2)) and "relu" in closed form; "tanh", "softplus", "sigmoid" and
            "gelu" by quadrature.

    Returns:
        A scalar.

    Raises:
        InputError: shapes that do not fit, an unknown activation, or ReLU neurons of length zero.
    """
    if w.shape != (len(a), v.shape[-1]) or v.shape != (len(b), w.shape[-1]):
        raise InputError(
            f"a {tuple(a.shape)}, w {tuple(w.shape)}, b {tuple(b.shape)}, v {tuple(v.shape)}: "
            f"[n], [n, d], [k], [k, d] are needed"
        )
    outgoing, incoming = torch.cat([a, -b]), torch.cat([w, v])
    return outgoing @ interactions(incoming, activation=activation) @ outgoing


def interactions(u: Tensor, *, activation: str = "erf") -> Tensor:
    """E σ(u_p·x) σ(u_q·x) of every pair of neurons `u` [P, d]: [P, P]."""
    if activation == "erf":
        size = (1 + u.square().sum(1)).sqrt()
        return 2 / math.pi * torch.asin((u @ u.T) / (size[:, None] * size))
    lengths: Tensor = torch.linalg.vector_norm(u, dim=1)
    if activation == "relu":
        if not bool((lengths > 0).all()):
            raise InputError("a ReLU neuron of length zero has no direction: remove it")
        products: Tensor = _ReluProducts.apply(u)  # type: ignore[no-untyped-call]
        return products
    cosine = (u @ u.T) / (lengths[:, None] * lengths).clamp(min=1e-300)
    rows = [
        interaction(length.expand_as(lengths), lengths, line, activation=activation)
        for length, line in zip(lengths, cosine, strict=True)
    ]
    return torch.stack(rows)


def interaction(r1: Tensor, r2: Tensor, u: Tensor, *, activation: str = "erf") -> Tensor:
    """E σ(r1 x) σ(r2 y) for standard normal x, y of correlation `u`, scalars or of one shape."""
    if activation == "erf":
        scale = ((1 + r1**2) * (1 + r2**2)).sqrt()
        return 2 / math.pi * torch.asin(r1 * r2 * u / scale)
    if activation == "relu":
        u = u.clamp(-1, 1)
        rest = (1 - u**2).clamp(min=0).sqrt()
        return r1 * r2 / (2 * math.pi) * (rest + (math.pi - torch.acos(u)) * u)
    if activation not in SMOOTH:
        known = ("erf", "relu", *SMOOTH)
        raise InputError(
            f"no activation {activation!r}{nearest(activation, known)}; known: {', '.join(known)}"
        )
    return quadrature(SMOOTH[activation], r1, r2, u)


def quadrature(function: Callable[[Tensor], Tensor], r1: Tensor, r2: Tensor, u: Tensor) -> Tensor:
    """`interaction` of any activation, by Gauss-Legendre nodes in both directions."""
    x, weight = _gauss()
    rest = (1 - u**2).clamp(min=1e-24).sqrt()  # not 0, where its gradient is infinite
    r1, r2, u, rest = (value[..., None, None] for value in (r1, r2, u, rest))
    y = u * x[:, None] + rest * x
    inner = (function(r2 * y) * weight).sum(-1)
    return (function(r1[..., 0] * x) * inner * weight).sum(-1)


@functools.cache
def _gauss() -> tuple[Tensor, Tensor]:
    """Nodes on the line and their weights under the standard normal density."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    x = REACH * nodes
    density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    return torch.from_numpy(x), torch.from_numpy(REACH * weights * density)


class _ReluProducts(torch.autograd.Function):
    """The arc-cosine kernel of order one; its gradient is finite at parallel neurons."""

    @staticmethod
    def forward(ctx: Any, u: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(u, dim=1)
        unit = u / length[:, None]
        # Kahan's angle keeps its digits near 0 and π, where the arc cosine loses half of them.
        apart = (unit[:, None] - unit).norm(dim=2)
        together = (unit[:, None] + unit).norm(dim=2)
        angle = 2 * torch.atan2(apart, together)
        ctx.save_for_backward(u, length, angle)
        both = torch.sin(angle) + (math.pi - angle) * torch.cos(angle)
        products: Tensor = length[:, None] * length * both / (2 * math.pi)
        return products

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        u, length, angle = ctx.saved_tensors
        gradient = (gradient + gradient.T) / (2 * math.pi)
        along = (gradient * torch.sin(angle) * length / length[:, None]).sum(1, keepdim=True)
        slope: Tensor = (gradient * (math.pi - angle)) @ u + along * u
        return slope
