"""What feature losses share: checks, precision, the axes of maps and tokens, pooling.

Features are maps (B, C, H, W), volumes, tokens (B, L, C) or vectors (B, C). Losses compute in
float32, in float64 where an input is float64, and never in less, whatever autocast is on.
"""

from __future__ import annotations

import functools
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from limbeck.errors import InputError

Per = Literal["element", "sample"]
Same = Literal["batch", "channels", "grid", "shape"]

_KINDS = {
    2: "vectors (B, C)",
    3: "tokens (B, L, C)",
    4: "maps (B, C, H, W)",
    5: "volumes (B, C, D, H, W)",
}
_DIFFER = {"channels": "channels", "grid": "number of positions", "shape": "shape"}


def pair(
    loss: str,
    student: Tensor,
    teacher: Tensor,
    *,
    same: Same = "shape",
    ranks: tuple[int, ...] = tuple(_KINDS),
    pool: bool = False,
) -> tuple[Tensor, Tensor]:
    """Student and teacher as a loss computes with them: checked, float32 or better, one type.

    Args:
        loss: name of the loss, for the error message.
        student: features of the student.
        teacher: features of the teacher; they come back detached.
        same: what must agree besides the batch.
        ranks: numbers of axes that the loss understands.
        pool: bring maps of different sizes to the smaller grid first.

    Raises:
        InputError: not tensors, wrong number of axes, an empty batch, or shapes that differ.
    """
    _check_ranks(loss, student, teacher, ranks)
    shapes = student.shape, teacher.shape
    student, teacher = at_least_float32(student, teacher)
    if pool:
        student, teacher = match_grids(student, teacher)
    if _compared(student, same) != _compared(teacher, same):
        raise InputError(_mismatch(loss, *shapes, same))
    return student, teacher.detach()


def at_least_float32(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in their common floating point type, which is float32 or float64."""
    dtype = functools.reduce(torch.promote_types, [t.dtype for t in tensors], torch.float32)
    return tuple(tensor.to(dtype) for tensor in tensors)


def _check_ranks(loss: str, student: Tensor, teacher: Tensor, ranks: tuple[int, ...]) -> None:
    for owner, features in (("student", student), ("teacher", teacher)):
        if not isinstance(features, Tensor):
            raise InputError(
                f"{loss} takes tensors as features, the {owner}'s are {type(features).__name__}"
            )
    found = f"student {tuple(student.shape)} and teacher {tuple(teacher.shape)}"
    if student.dim() not in ranks or teacher.dim() not in ranks:
        kinds = " or ".join(_KINDS[rank] for rank in ranks)
        raise InputError(f"{loss} takes {kinds}, got {found}: an adapter would map them")
    if student.numel() == 0 or teacher.numel() == 0:
        raise InputError(f"{loss} needs at least one sample and one value, got {found}")


def _compared(features: Tensor, same: Same) -> tuple[int, ...]:
    if same == "shape":
        return tuple(features.shape)
    batch, channels, positions = as_maps(features).shape
    return {"batch": (batch,), "channels": (batch, channels), "grid": (batch, positions)}[same]


def _mismatch(loss: str, student: torch.Size, teacher: torch.Size, same: Same) -> str:
    found = f"student {tuple(student)} and teacher {tuple(teacher)}"
    if student[0] != teacher[0]:
        return f"{loss} needs both sides of one batch, got {found}"
    return (
        f"{loss} needs features that agree in {_DIFFER[same]}, got {found}: an adapter on the "
        f"student's side would map them"
    )


def as_maps(features: Tensor) -> Tensor:
    """Features with the axes (B, C, positions), whatever they were."""
    if features.dim() == 3:
        return features.transpose(1, 2)
    return features.flatten(2) if features.dim() > 3 else features.unsqueeze(-1)


def per_channel(values: Tensor, features: Tensor) -> Tensor:
    """One value a channel, shaped to broadcast over `features`."""
    return values.view(-1, *[1] * (features.dim() - 2)) if features.dim() > 3 else values


def match_grids(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps on the smaller of their grids, by average pooling; other features unchanged."""
    if student.dim() != 4 or teacher.dim() != 4:
        return student, teacher
    size = min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3])
    return _pooled(student, size), _pooled(teacher, size)


def _pooled(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return maps if maps.shape[2:] == size else adaptive_avg_pool2d(maps, size)


def unit(x: Tensor, dim: int = -1, eps: float = 1e-12) -> Tensor:
    """`x` over its norm along `dim`; zero, with zero gradient, where the norm is below `eps`."""
    norm = torch.linalg.vector_norm(x, dim=dim, keepdim=True)
    return torch.where(norm > eps, x / norm.clamp_min(eps), torch.zeros_like(x))


def per_sample(values: Tensor, per: Per = "element") -> Tensor:
    """One number a sample: the mean over its elements, or with ``per="sample"`` their sum."""
    check_choice("per", per, "element", "sample")
    rows = values.flatten(1)
    return rows.mean(1) if per == "element" else rows.sum(1)


def check_choice(name: str, value: str, *choices: str) -> None:
    """Refuses an option that is none of the `choices`."""
    if value not in choices:
        allowed = " or ".join(map(repr, choices))
        raise InputError(f"{name} is {value!r}: it must be {allowed}")
