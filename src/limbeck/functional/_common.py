"""What every loss shares: input checks, precision, reductions, divergences."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from numbers import Real
from typing import Any, Literal, ParamSpec

import torch
import torch.nn.functional as tf
from torch import Tensor

from limbeck.errors import InputError

Reduction = Literal["mean", "sum", "none"]
P = ParamSpec("P")


def full_precision(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Decorator of losses: they compute in float32 or better, also under autocast.

    Half precision tensors among the arguments become float32 (their gradients stay half), float32
    and float64 stay what they are.
    """

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        args_, kwargs_ = map(_widen, args), {key: _widen(value) for key, value in kwargs.items()}
        device = next((a.device.type for a in args if isinstance(a, Tensor)), "cpu")
        if not torch.is_autocast_enabled(device):
            return function(*args_, **kwargs_)
        with torch.autocast(device, enabled=False):
            return function(*args_, **kwargs_)

    return wrapper


def _widen(value: Any) -> Any:
    half = isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16)
    return value.float() if half else value


def check_pair(
    student: Tensor, teacher: Tensor, what: str = "logits", *, dimensions: int = 2
) -> None:
    """Refuses tensors that are not of one shape, hold nothing, or are not floating point."""
    check_tensor(student, f"student {what}", dimensions=dimensions)
    check_tensor(teacher, f"teacher {what}", dimensions=dimensions)
    if student.shape != teacher.shape:
        raise InputError(
            f"student {what} have shape {tuple(student.shape)} and teacher {what} "
            f"{tuple(teacher.shape)}: this loss needs the same shape on both sides"
        )


def check_tensor(tensor: Tensor, name: str, *, dimensions: int = 2) -> None:
    """Refuses what is no floating point tensor with elements and at least that many dimensions."""
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
        raise InputError(f"{name} are {kind}: a floating point tensor is needed")
    if tensor.dim() < dimensions or tensor.numel() == 0:
        raise InputError(
            f"{name} have shape {tuple(tensor.shape)}: a batch with at least one sample and "
            f"{dimensions} or more dimensions is needed"
        )


def check_target(target: Tensor, expected: torch.Size | tuple[int, ...]) -> None:
    """Refuses targets that are not integers or not one for each prediction.

    Values are not looked at: that would wait for the device. Data loading checks their range.
    """
    if target.is_floating_point() or target.dtype == torch.bool or target.shape != expected:
        raise InputError(
            f"targets have shape {tuple(target.shape)} and type {target.dtype}: class ids, "
            f"integers of shape {tuple(expected)}, are needed"
        )


def check_positive(**values: float | Tensor) -> None:
    """Refuses numbers that are not above zero; tensors pass, reading them would wait."""
    for name, value in values.items():
        if isinstance(value, Real) and not value > 0:
            raise InputError(f"{name} is {value}: it must be above 0")


def check_nonnegative(**values: float | Tensor) -> None:
    """Refuses numbers below zero; tensors pass, reading them would wait."""
    for name, value in values.items():
        if isinstance(value, Real) and not value >= 0:
            raise InputError(f"{name} is {value}: it must be 0 or more")


def check_fraction(**values: float) -> None:
    """Refuses numbers outside [0, 1]."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise InputError(f"{name} is {value}: it must lie between 0 and 1")


def reduce(values: Tensor, reduction: Reduction) -> Tensor:
    """The mean over all `values` (one a sample), their sum, or the values as they are."""
    if reduction == "mean":
        return values.mean()
    if reduction == "sum":
        return values.sum()
    if reduction == "none":
        return values
    raise InputError(f"reduction is {reduction!r}: it must be 'mean', 'sum' or 'none'")


def kl(log_p: Tensor, log_q: Tensor, dim: int, *, cross_entropy: bool = False) -> Tensor:
    """Σ p (log p − log q) along `dim`, or −Σ p log q, the same without the entropy of p."""
    p = log_p.exp()
    return -(p * log_q).sum(dim) if cross_entropy else (p * (log_p - log_q)).sum(dim)


@full_precision
def standardize(logits: Tensor, *, eps: float = 1e-7) -> Tensor:
    """Each sample's logits with mean 0 and standard deviation 1 over the classes.

    (z − mean(z)) / (std(z) + eps), with C − 1 in the denominator of std. Logit Standardization in
    Knowledge Distillation (CVPR 2024); sunshangquan/logit-standardization-KD@f6e5aa5.

    Args:
        logits: [B, C] or [B, C, ...].
        eps: added to the standard deviation.

    Returns:
        A tensor of the same shape; zeros where all classes have one logit.
    """
    centered = logits - logits.mean(1, keepdim=True)
    freedom = max(logits.shape[1] - 1, 1)
    std: Tensor = torch.linalg.vector_norm(centered, dim=1, keepdim=True) / math.sqrt(freedom)
    return centered / (std + eps)


def soften(
    student: Tensor, teacher: Tensor, temperature: float | Tensor, standardized: bool = False
) -> tuple[Tensor, Tensor]:
    """Checked logits of both, divided by the temperature; the teacher's detached."""
    check_pair(student, teacher)
    check_positive(temperature=temperature)
    teacher = teacher.detach()
    if standardized:
        student, teacher = standardize(student), standardize(teacher)
    if isinstance(temperature, Tensor) or temperature != 1:
        student, teacher = student / temperature, teacher / temperature
    return student, teacher


def check_labels(logits: Tensor, target: Tensor) -> None:
    """Refuses targets that are not one class id for each position of `logits` [B, C, ...]."""
    check_target(target, logits.shape[:1] + logits.shape[2:])


def one_hot(logits: Tensor, target: Tensor) -> Tensor:
    """Zeros of the shape of `logits` [B, C, ...], 1 at each position's target class."""
    return torch.zeros_like(logits).scatter(1, target.unsqueeze(1), 1.0)


def binary_kl(p_odds: Tensor, q_odds: Tensor) -> Tensor:
    """KL between two coins, each given by its log-odds, element by element."""
    return tf.softplus(q_odds) - tf.softplus(p_odds) + p_odds.sigmoid() * (p_odds - q_odds)
