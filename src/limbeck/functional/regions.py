"""Scale-decoupled distillation: logits of image regions beside those of the whole image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as tf
from torch import Tensor

from limbeck.errors import InputError
from limbeck.functional._common import (
    Reduction,
    check_nonnegative,
    check_pair,
    check_tensor,
    full_precision,
    reduce,
)
from limbeck.functional.logits import dkd_loss


def sdd_pool(features: Tensor, *, scales: Sequence[int] = (1, 2, 4), grid: int = 4) -> Tensor:
    """Averages of a map over the cells of m × m grids, one grid a scale, as [B, C, N].

    N = Σ m²; the whole image comes first if the first scale is 1, cells row by row. As published,
    every grid is pooled from a 4 × 4 one, which matters for sizes that 4 does not divide.
    Scale Decoupled Distillation (CVPR 2024);
    shicaiwei123/SDD-CVPR2024@e412036:mdistiller/models/cifar/utils.py.

    Args:
        features: [B, C, H, W]. Pooling the map before a linear head equals pooling its logits.
        scales: grid sizes m.
        grid: the size of the grid that the others are pooled from; a larger scale replaces it.
    """
    check_tensor(features, "features")
    if features.dim() != 4 or not scales:
        raise InputError(
            f"features have shape {tuple(features.shape)} and scales are {tuple(scales)}: a map "
            "[batch, channels, height, width] and at least one scale are needed"
        )
    finest = tf.adaptive_avg_pool2d(features, max(grid, *scales))
    return torch.cat([tf.adaptive_avg_pool2d(finest, m).flatten(2) for m in scales], dim=2)


@full_precision
def sdd_loss(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    *,
    loss: Callable[..., Tensor] = dkd_loss,
    complementary: float = 2.0,
    reduction: Reduction = "mean",
    **hyperparameters: Any,
) -> Tensor:
    """A logit loss on every region's logits, regions that add knowledge weighted more.

    The weight is 1 where the teacher is right, or wrong, on the region as it is on the whole image,
    else `complementary`; the mean is over regions and samples. Scale Decoupled Distillation (CVPR
    2024); shicaiwei123/SDD-CVPR2024@e412036:mdistiller/distillers/SDD_DKD.py.

    Args:
        student: logits [B, C, N] of N regions, the first one the whole image; see `sdd_pool`.
        teacher: logits of the same shape.
        target: class ids [B].
        loss: any logit loss that takes a target, as `dkd_loss` or `nkd_loss`.
        complementary: the weight of complementary regions.
        reduction: over samples.
        **hyperparameters: passed to `loss`.
    """
    check_pair(student, teacher)
    check_nonnegative(complementary=complementary)
    if student.dim() != 3:
        raise InputError(
            f"region logits have shape {tuple(student.shape)}: [batch, classes, regions] is needed"
        )
    targets = target.unsqueeze(-1).expand(-1, student.shape[2])
    values = loss(student, teacher, targets, reduction="none", **hyperparameters)
    right = teacher.argmax(1) == targets
    weights = torch.where(right == right[:, :1], 1.0, complementary)
    return reduce((weights * values).mean(1), reduction)
