"""Losses on pre-activations: on which side of zero a teacher's neurons stand, and by how much."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from limbeck.functional._common import Reduction, reduce
from limbeck.functional.maps import Per, pair, per_channel, per_sample


def ab_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    margin: float = 1.0,
    per: Per = "sample",
    reduction: Reduction = "mean",
) -> Tensor:
    """Hinge on the teacher's activation boundaries (AB: Heo et al., AAAI 2019).

    Where the teacher is off (t <= 0) the student pays max(s + margin, 0)^2, elsewhere
    max(margin - s, 0)^2; a sum over the elements of a sample. The official script scales the batch
    mean by 3 / 1000, and by 1/2 for each layer further from the output.

    Args:
        student: features before the activation, any shape (B, ...), out of a connector.
        teacher: features before the activation, the same shape.
        margin: distance from zero beyond which the student pays nothing.
        per: "sample" for the sum over a sample's elements, "element" for their mean.
        reduction: "mean", "sum" or "none" over the batch.

    Returns:
        A scalar, or (B,) with ``reduction="none"``.

    Raises:
        InputError: shapes that differ, or an empty batch.

    Reference code: bhheo/AB_distillation@a7701d3.
    """
    student, teacher = pair("ab_loss", student, teacher)
    short = torch.where(teacher > 0, margin - student, margin + student).clamp_min(0)
    return reduce(per_sample(short.square(), per), reduction)


def ofd_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    margin: Tensor | None = None,
    per: Per = "sample",
    reduction: Reduction = "mean",
) -> Tensor:
    """Partial distance behind a margin ReLU (OFD: Heo et al., ICCV 2019).

    With t' = max(t, margin) of each channel, (s - t')^2 counts unless both s <= t' <= 0; a sum
    over the elements of a sample. The official script divides the batch mean by 1000 (CIFAR) or
    10000 (ImageNet), and by 2 for each layer further from the output.

    Args:
        student: features before the activation: maps, tokens or vectors, out of a connector.
        teacher: features before the activation, the same shape.
        margin: one negative number a channel (C,), see `ofd_margin`; None: `teacher` as given.
        per: "sample" for the sum over a sample's elements, "element" for their mean.
        reduction: "mean", "sum" or "none" over the batch.

    Returns:
        A scalar, or (B,) with ``reduction="none"``.

    Raises:
        InputError: shapes that differ, or an empty batch.

    Reference code: clovaai/overhaul-distillation@76344a8.
    """
    student, teacher = pair("ofd_loss", student, teacher)
    if margin is not None:
        teacher = torch.maximum(teacher, per_channel(margin.detach().to(teacher.dtype), teacher))
    counts = (student > teacher) | (teacher > 0)
    values = torch.where(counts, student - teacher, torch.zeros_like(student)).square()
    return reduce(per_sample(values, per), reduction)


def ofd_margin(weight: Tensor, bias: Tensor) -> Tensor:
    """Mean of a channel's negative responses, from its batch normalization (OFD).

    E[x | x < 0] for x normal with mean `bias` and deviation |`weight`|; three deviations below
    zero for a channel that is negative less than once in a thousand.

    Args:
        weight: scale of the teacher's last batch normalization before the tap, (C,).
        bias: its shift, (C,).

    Returns:
        (C,), float32 or better.
    """
    deviation, mean = weight.detach().double().abs(), bias.detach().double()
    ratio = mean / deviation.clamp_min(1e-12)
    negative = torch.special.ndtr(-ratio)
    density = torch.exp(-ratio.square() / 2) / math.sqrt(2 * math.pi)
    expected = mean - deviation * density / negative.clamp_min(1e-3)
    margin = torch.where(negative > 1e-3, expected, -3 * deviation)
    return margin.to(torch.promote_types(weight.dtype, torch.float32))
