"""Effective logits: where the two-term loss of distillation leaves a student, sample by sample.

Ji and Zhu, Knowledge Distillation in Wide Neural Networks (NeurIPS 2020): the loss of one sample is
ρ H(teacher / T, student / T) + (1 − ρ) H(label, student), without a factor T². ρ is the soft ratio.
"""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck.errors import InputError
from limbeck.functional._common import check_tensor

BISECTIONS = 200
NEWTON_STEPS = 500


def effective_logits(
    teacher: Tensor, target: Tensor, *, soft_ratio: float | Tensor, temperature: float | Tensor
) -> Tensor:
    """The logits at which the loss of each sample alone is smallest.

    Binary, one logit z a sample: the root of ρ/T [σ(z/T) − σ(z_t/T)] + (1 − ρ) [σ(z) − y], by
    bisection. With C logits: the same equation for softmax, by Newton's method with steps of at
    most one, in the gauge of mean zero. Accurate to 1e-9 of 1 + |z|, computed in float64.

    Args:
        teacher: logits of class 1 [N], or of every class [N, C].
        target: labels [N]: class ids; for one logit 0 and 1, or −1 and 1.
        soft_ratio: ρ in (0, 1], a number or [N]. At 0 the label alone has no finite minimum.
        temperature: T above 0, a number or [N].

    Returns:
        float64 tensor of the shape of `teacher`.

    Raises:
        InputError: ρ or T out of range, logits that are not finite, or labels that do not fit.
    """
    check_tensor(teacher, "teacher logits", dimensions=1)
    if teacher.dim() > 2 or target.shape != teacher.shape[:1]:
        raise InputError(
            f"teacher logits have shape {tuple(teacher.shape)}, targets {tuple(target.shape)}: "
            f"[N] or [N, C], and [N], are needed"
        )
    z_t = teacher.detach().double()
    if not bool(torch.isfinite(z_t).all()):
        raise InputError("teacher logits are not all finite numbers")
    rho = _per_sample(soft_ratio, z_t)
    heat = _per_sample(temperature, z_t)
    if not bool(((rho > 0) & (rho <= 1)).all()):
        raise InputError(
            "soft_ratio must lie in (0, 1]: at 0 only hard labels are left, whose best logits are "
            "infinite; use a small ratio such as 0.01"
        )
    if not bool((heat > 0).all()):
        raise InputError("temperature must be above 0")
    if z_t.dim() == 1:
        return _binary(z_t, _signs(target), rho, heat)
    return _softmax(z_t, _class_ids(target, z_t.shape[1]), rho, heat)


def _per_sample(value: float | Tensor, logits: Tensor) -> Tensor:
    given = torch.as_tensor(value, dtype=torch.float64, device=logits.device)
    return given.expand(len(logits))


def _signs(target: Tensor) -> Tensor:
    """True where the label is class 1."""
    values = set(target.tolist())
    if not (values <= {0, 1} or values <= {-1, 1}):
        raise InputError(
            f"labels are {sorted(values)[:5]}: one logit a sample needs 0 and 1, or -1 and 1"
        )
    return target > 0


def _class_ids(target: Tensor, classes: int) -> Tensor:
    if target.is_floating_point() or bool(((target < 0) | (target >= classes)).any()):
        raise InputError(f"targets must be class ids from 0 to {classes - 1}")
    return target.long()


def _binary(z_t: Tensor, positive: Tensor, rho: Tensor, heat: Tensor) -> Tensor:
    """Solved for label 1; for label 0 by symmetry. The root lies at or above the teacher's."""
    sign = positive.double() * 2 - 1
    z_t = z_t * sign

    def slope(z: Tensor) -> Tensor:
        return rho / heat * _sigmoid_difference(z / heat, z_t / heat) - (1 - rho) * (-z).sigmoid()

    low, step = z_t.clone(), torch.ones_like(z_t)
    high = z_t + step
    while bool((below := slope(high) < 0).any()):
        low = torch.where(below, high, low)
        step = torch.where(below, 2 * step, step)
        high = torch.where(below, high + step, high)
    for _ in range(BISECTIONS):
        middle = low + (high - low) / 2
        below = slope(middle) < 0
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    root = torch.where(rho == 1, z_t, low + (high - low) / 2)
    return root * sign


def _sigmoid_difference(a: Tensor, b: Tensor) -> Tensor:
    """σ(a) − σ(b), without the loss of digits where both are near one."""
    sign = torch.where(b > 0, -1.0, 1.0).to(a.dtype)
    return sign * ((sign * a).sigmoid() - (sign * b).sigmoid())


def _softmax(z_t: Tensor, target: Tensor, rho: Tensor, heat: Tensor) -> Tensor:
    rho, heat = rho[:, None], heat[:, None]
    hard = torch.zeros_like(z_t).scatter(1, target[:, None], 1.0)
    soft = (z_t / heat).softmax(1)
    start = z_t - z_t.mean(1, keepdim=True)
    z = start
    gauge = torch.full((z_t.shape[1],) * 2, 1 / z_t.shape[1], dtype=z.dtype, device=z.device)
    for _ in range(NEWTON_STEPS):
        q, p = (z / heat).softmax(1), z.softmax(1)
        gradient = rho / heat * (q - soft) + (1 - rho) * (p - hard)
        curvature = (rho / heat**2)[..., None] * _covariance(q)
        curvature = curvature + (1 - rho)[..., None] * _covariance(p) + gauge
        step = torch.linalg.solve(curvature, gradient)
        # Far from the minimum a full step would leap over it where the softmax is saturated.
        step = step / step.abs().amax(1, keepdim=True).clamp(min=1)
        z = z - step
        # Newton: an error of 1e-10 before the step is rounding after it.
        if bool((step.abs() <= 1e-10 * (1 + z.abs())).all()):
            break
    z = z - z.mean(1, keepdim=True)
    return torch.where(rho == 1, start, z)


def _covariance(p: Tensor) -> Tensor:
    return p.diag_embed() - p[:, :, None] * p[:, None, :]


def correction_threshold(teacher: Tensor | float, *, temperature: float) -> Tensor:
    """The soft ratio below which a hard label turns a wrong teacher's sign.

    ρ_c = T / (T + tanh(|z_t| / 2T)) ≥ T / (T + 1), for one logit z_t; with several, z_t is the
    teacher's margin of its own class over the label's.

    Args:
        teacher: logits or margins, any shape.
        temperature: T above 0.
    """
    if not temperature > 0:
        raise InputError(f"temperature is {temperature}: it must be above 0")
    size = torch.as_tensor(teacher, dtype=torch.float64).abs()
    return temperature / (temperature + torch.tanh(size / (2 * temperature)))


def soft_ratio(alpha: float, *, temperature: float) -> float:
    """ρ of the usual loss α T² KL_T + (1 − α) CE: α T² / (1 − α + α T²)."""
    _check_unit(alpha, "alpha")
    soft = alpha * temperature**2
    return soft / (1 - alpha + soft)


def soft_weight(soft_ratio: float, *, temperature: float) -> float:
    """α of the usual loss α T² KL_T + (1 − α) CE with the minimum of soft ratio ρ."""
    _check_unit(soft_ratio, "soft_ratio")
    return soft_ratio / (soft_ratio + (1 - soft_ratio) * temperature**2)


def _check_unit(value: float, name: str) -> None:
    if not 0 <= value <= 1:
        raise InputError(f"{name} is {value}: it must lie between 0 and 1")
