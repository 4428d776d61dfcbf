"""One layer for all members of a batch ensemble: a shared weight, scaled on both sides."""

from __future__ import annotations

import torch.nn.functional as tf
from torch import Tensor

from limbeck.errors import InputError
from limbeck.functional._common import check_tensor


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
    check_tensor(x, "inputs")
    members = len(alpha)
    if len(x) % members or len(gamma) != members:
        raise InputError(
            f"inputs have shape {tuple(x.shape)}, alpha {tuple(alpha.shape)} and gamma "
            f"{tuple(gamma.shape)}: one row a member and as many samples for each are needed"
        )

    def by_member(values: Tensor) -> Tensor:
        return values.view(members, *[1] * (x.dim() - 1), -1)

    shared = bias if bias is not None and bias.dim() == 1 else None
    grouped = x.view(members, -1, *x.shape[1:])
    output = tf.linear(grouped * by_member(alpha), weight, shared) * by_member(gamma)
    if bias is not None and bias.dim() == 2:
        output = output + by_member(bias)
    return output.view(len(x), *output.shape[2:])
