"""One layer for all members of a batch ensemble: a shared weight, scaled on both sides."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as tf
from torch import Tensor

from limbeck.errors import InputError
from limbeck.functional._common import check_tensor

Window = int | Sequence[int]


def batch_ensemble_linear(
    x: Tensor, weight: Tensor, alpha: Tensor, gamma: Tensor, bias: Tensor | None = None
) -> Tensor:
    """((x ∘ α_m) Wᵀ) ∘ γ_m + b_m for the M members at once: BatchEnsemble (ICLR 2020).

    google/edward2@ee02560:edward2/jax/nn/dense.py.

    Args:
        x: inputs [M · B, ..., H], all samples of the first member first.
        weight: shared by the members [V, H].
        alpha: input scales of the members [M, H].
        gamma: output scales of the members [M, V].
        bias: one a member [M, V], added last; or one of the shared layer [V], which γ scales too,
            as in cs-giung/giung2@c8560fd.

    Returns:
        [M · B, ..., V].
    """
    shared = _shared(bias)
    return _scaled(x, lambda rows: tf.linear(rows, weight, shared), alpha, gamma, bias, -1)


def batch_ensemble_conv(
    x: Tensor,
    weight: Tensor,
    alpha: Tensor,
    gamma: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Window = 1,
    padding: str | Window = 0,
    dilation: Window = 1,
    groups: int = 1,
) -> Tensor:
    """The same for a convolution over one, two or three axes: α scales channels in, γ out.

    cs-giung/giung2@c8560fd:giung2/layers.

    Args:
        x: inputs [M · B, C, ...], all samples of the first member first.
        weight: shared by the members [V, C / groups, ...].
        alpha: input scales of the members [M, C].
        gamma: output scales of the members [M, V].
        bias: one a member [M, V], or one of the shared layer [V], as of `batch_ensemble_linear`.
        stride: of the convolution, as are the other three.
        padding: numbers, or "same".
        dilation: between the elements of the kernel.
        groups: of channels.

    Returns:
        [M · B, V, ...].
    """
    convolve = _CONVOLUTIONS[weight.dim() - 2]
    shared = _shared(bias)

    def apply(rows: Tensor) -> Tensor:
        return convolve(rows, weight, shared, stride, padding, dilation, groups)

    return _scaled(x, apply, alpha, gamma, bias, 2)


_CONVOLUTIONS: dict[int, Callable[..., Tensor]] = {1: tf.conv1d, 2: tf.conv2d, 3: tf.conv3d}


def _shared(bias: Tensor | None) -> Tensor | None:
    return bias if bias is not None and bias.dim() == 1 else None


def _scaled(
    x: Tensor,
    apply: Callable[[Tensor], Tensor],
    alpha: Tensor,
    gamma: Tensor,
    bias: Tensor | None,
    axis: int,
) -> Tensor:
    """γ ∘ apply(α ∘ x) + b, member by member, the channels along `axis` of [M, B, ...]."""
    check_tensor(x, "inputs")
    if len(x) % len(alpha) or len(gamma) != len(alpha):
        raise InputError(
            f"inputs have shape {tuple(x.shape)}, alpha {tuple(alpha.shape)} and gamma "
            f"{tuple(gamma.shape)}: one row a member and as many samples for each are needed"
        )
    grouped = x.view(len(alpha), -1, *x.shape[1:])
    rows = (grouped * _along(alpha, grouped, axis)).flatten(0, 1)
    output = apply(rows)
    output = output.view(len(alpha), -1, *output.shape[1:])
    scale = _along(gamma, output, axis)
    if bias is None or bias.dim() == 1:
        return (output * scale).flatten(0, 1)
    return torch.addcmul(_along(bias, output, axis), output, scale).flatten(0, 1)


def _along(values: Tensor, grouped: Tensor, axis: int) -> Tensor:
    """Values [M, C] shaped to meet [M, B, ...] with C along `axis`."""
    shape = [1] * grouped.dim()
    shape[0], shape[axis] = values.shape
    return values.view(shape)
