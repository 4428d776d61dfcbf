"""Losses over several layers at once: reviewed, associated, or the flow from one to the next."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, adaptive_max_pool2d

from limbeck.errors import InputError
from limbeck.functional._common import Reduction, full_precision, reduce
from limbeck.functional.features import mean_squares
from limbeck.functional.maps import (
    as_maps,
    at_least_float32,
    check_choice,
    match_grids,
    pair,
    per_sample,
)

Layers = Tensor | Sequence[Tensor]


def reviewkd_hcl_loss(
    student: Layers,
    teacher: Layers,
    *,
    levels: Sequence[int] = (4, 2, 1),
    reduction: Reduction = "mean",
) -> Tensor:
    """Hierarchical context loss of ReviewKD (Chen et al., CVPR 2021).

    For each layer the squared error of the maps and of their averages on coarser and coarser
    grids; each level counts half of the one before, and the weights of a layer sum to one. A level
    that is not coarser than the map is left out.

    Args:
        student: one map (B, C, H, W) or one a layer, the fused outputs of
            `limbeck.nn.fusion.ReviewFusion`.
        teacher: maps of the same shapes.
        levels: sides of the coarser grids.
        reduction: "mean", "sum" or "none" over the batch.

    Returns:
        The sum over layers: a scalar, or (B,) with ``reduction="none"``.

    Raises:
        InputError: shapes or numbers of layers that differ, or an empty batch.

    Reference code: dvlab-research/ReviewKD@cede6ea.
    """
    layers = layer_pairs("reviewkd_hcl_loss", student, teacher)
    values = torch.stack([_context(s, t, levels) for s, t in layers]).sum(0)
    return reduce(values, reduction)


def _context(student: Tensor, teacher: Tensor, levels: Sequence[int]) -> Tensor:
    student, teacher = pair("reviewkd_hcl_loss", student, teacher, ranks=(4,))
    difference = student - teacher  # pooling is linear: one difference serves every level
    values, weight, total = per_sample(difference.square()), 1.0, 1.0
    for level in levels:
        if level < student.shape[2]:
            weight /= 2
            total += weight
            values = values + weight * per_sample(adaptive_avg_pool2d(difference, level).square())
    return values / total


def layer_pairs(loss: str, student: Layers, teacher: Layers) -> list[tuple[Tensor, Tensor]]:
    """Student and teacher layer by layer; a single tensor counts as one layer."""
    students = [student] if isinstance(student, Tensor) else list(student)
    teachers = [teacher] if isinstance(teacher, Tensor) else list(teacher)
    if len(students) != len(teachers) or not students:
        raise InputError(
            f"{loss} needs as many student layers as teacher layers, got {len(students)} and "
            f"{len(teachers)}"
        )
    return list(zip(students, teachers, strict=True))


def semckd_loss(
    student: Sequence[Sequence[Tensor]],
    teacher: Sequence[Sequence[Tensor]],
    attention: Tensor,
    *,
    reduction: Reduction = "mean",
) -> Tensor:
    """Every student layer against every teacher layer, weighed (SemCKD: Chen et al., AAAI 2021).

    The three arguments are what `limbeck.nn.fusion.LayerAssociation` returns.

    Args:
        student: S lists of T maps: layer i of the student in the shape of layer j of the teacher.
        teacher: S lists of T maps of the same shapes.
        attention: weights (B, S, T) that sum to one over T.
        reduction: "mean", "sum" or "none" over the batch.

    Returns:
        The mean over the student's layers: a scalar, or (B,) with ``reduction="none"``.

    Raises:
        InputError: shapes that differ, or an empty batch.

    Reference code: DefangChen/SemCKD@ebe5db1.
    """
    name = "semckd_loss"
    rows = [
        torch.stack([mean_squares(name, *both) for both in layer_pairs(name, *row)], dim=1)
        for row in zip(student, teacher, strict=True)
    ]
    errors, weights = at_least_float32(torch.stack(rows, dim=1), attention)
    return reduce((errors * weights).sum((1, 2)) / len(rows), reduction)


def fsp_loss(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    *,
    pool: Literal["average", "max"] = "average",
    reduction: Reduction = "mean",
) -> Tensor:
    """Difference of the flows from layer to layer (FSP: Yim et al., CVPR 2017).

    The flow between two maps is their channels' inner products, divided by the number of positions;
    the larger map is pooled to the smaller grid. Mean squared difference over its entries, summed
    over consecutive layers.

    Args:
        student: two or more maps (or tokens) of the student, in order.
        teacher: as many of the teacher, with the same numbers of channels.
        pool: "average" as in public code, or "max" as in the paper.
        reduction: "mean", "sum" or "none" over the batch.

    Returns:
        A scalar, or (B,) with ``reduction="none"``.

    Raises:
        InputError: fewer than two layers, numbers of channels that differ, or an empty batch.

    Reference code: HobbitLong/RepDistiller@b84f547.
    """
    layers = [
        pair("fsp_loss", s, t, same="channels", ranks=(3, 4))
        for s, t in layer_pairs("fsp_loss", student, teacher)
    ]
    check_choice("pool", pool, "average", "max")
    if len(layers) < 2:
        raise InputError(f"fsp_loss needs two or more layers of each side, got {len(layers)}")
    values = [
        per_sample((_flow(s0, s1, pool) - _flow(t0, t1, pool)).square())
        for (s0, t0), (s1, t1) in itertools.pairwise(layers)
    ]
    return reduce(torch.stack(values).sum(0), reduction)


@full_precision
def _flow(first: Tensor, second: Tensor, pool: str) -> Tensor:
    if pool == "max" and first.dim() == 4 and second.dim() == 4:
        height, width = (min(first.shape[axis], second.shape[axis]) for axis in (2, 3))
        first, second = (adaptive_max_pool2d(x, (height, width)) for x in (first, second))
    first, second = (as_maps(x) for x in match_grids(first, second))
    if first.shape[2] != second.shape[2]:
        raise InputError(
            f"fsp_loss needs layers on one grid, got {first.shape[2]} and {second.shape[2]} "
            f"positions: an adapter would map them"
        )
    return first @ second.transpose(1, 2) / first.shape[2]
