"""Adapters: trainable maps between the features of two networks of unlike shapes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool1d

from limbeck.errors import InputError

Shape = tuple[int, ...]
"""Of one sample: a vector (C,), tokens (L, C), maps (C, H, W) or volumes (C, D, H, W)."""

Kind = Literal["auto", "norm", "linear", "mlp", "none"]
"""How channels are mapped: linearly where they differ ("norm": and batch-normalized), always
linearly, by two layers, or never."""

EXTRA_TOKENS = (0, 1, 2, 4, 5)
"""Class, distillation and register tokens that may stand before the tokens of a grid."""


@dataclass(frozen=True)
class Layout:
    """How one side's features change their axes.

    Attributes:
        to: "maps", "vector", or "same" for no change.
        grid: height and width of the maps.
    """

    to: Literal["same", "maps", "vector"] = "same"
    grid: tuple[int, int] = (1, 1)

    def __call__(self, x: Tensor) -> Tensor:
        """The features, (B, ...)."""
        if self.to == "maps":
            rows = x[:, None] if x.dim() == 2 else x
            patches = rows[:, rows.shape[1] - math.prod(self.grid) :].transpose(1, 2)
            return patches.reshape(*patches.shape[:2], *self.grid)
        if self.to == "vector":
            return x.mean(1) if x.dim() == 3 else x.flatten(2).mean(2)
        return x

    def shape(self, shape: Shape) -> Shape:
        """The shape that comes out, for one sample."""
        if self.to == "same":
            return shape
        return (width(shape), *self.grid) if self.to == "maps" else (width(shape),)


class Adapter(nn.Module):
    """Brings the features of a student and of a teacher together, for a loss that compares them.

    Both come into one layout: beside maps, tokens become maps (without class tokens), beside
    vectors everything else is averaged over its positions. Grids meet at the smaller one, axis by
    axis, by average pooling. Channels are the student's to change, by a trained layer.

    Args:
        student: shape of the student's features, see `Shape`.
        teacher: shape of the teacher's.
        grid: whether the grids must agree.
        channels: whether the channels must agree.
        kind: how channels are mapped, see `Kind`.
        maps: give maps whatever the features are; vectors become maps of one pixel.

    Attributes:
        student_shape: of the student's features as they come out, for one sample.
        teacher_shape: of the teacher's.

    Raises:
        InputError: no map between these shapes exists, or it is needed and `kind` is "none".
    """

    def __init__(
        self,
        student: Shape,
        teacher: Shape,
        *,
        grid: bool = True,
        channels: bool = True,
        kind: Kind = "auto",
        maps: bool = False,
    ) -> None:
        super().__init__()
        self.layouts = _layouts(student, teacher, maps)
        shapes = [f.shape(s) for f, s in zip(self.layouts, (student, teacher), strict=True)]
        self.size = _meeting(*shapes) if grid else None
        self.student_shape, self.teacher_shape = (_resized(shape, self.size) for shape in shapes)
        ours, theirs = width(self.student_shape), width(self.teacher_shape)
        self.layer = _layer(ours, theirs, len(self.student_shape), kind) if channels else None
        if self.layer is not None:
            self.student_shape = with_width(self.student_shape, theirs)

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Both features as the loss wants them; the teacher's is never trained through."""
        ours, theirs = self.layouts[0](student), self.layouts[1](teacher)
        if self.size is not None:
            ours, theirs = _pool(ours, self.size), _pool(theirs, self.size)
        return (ours if self.layer is None else self.layer(ours)), theirs.detach()


def _layouts(student: Shape, teacher: Shape, maps: bool) -> tuple[Layout, Layout]:
    """For each side the change of layout that it needs."""
    ranks = len(student), len(teacher)
    _check_ranks(student, teacher, maps)
    if maps or set(ranks) == {2, 3} or (ranks == (2, 2) and _unlike_grids(student, teacher)):
        return _as_maps(student, teacher), _as_maps(teacher, student)
    if ranks[0] == ranks[1]:
        return Layout(), Layout()
    return _as_vector(student), _as_vector(teacher)


def _check_ranks(student: Shape, teacher: Shape, maps: bool) -> None:
    for shape in (student, teacher):
        if not 1 <= len(shape) <= 4:
            raise InputError(
                f"features of shape {shape} are no vectors (C,), tokens (L, C), maps (C, H, W) or "
                f"volumes (C, D, H, W): tap another module"
            )
    ranks = {len(student), len(teacher)}
    if 4 in ranks and (maps or ranks - {4, 1}):
        raise _impossible(student, teacher, "volumes meet volumes or vectors only")


def _unlike_grids(student: Shape, teacher: Shape) -> bool:
    return student[0] != teacher[0] and bool(grid_of(student) and grid_of(teacher))


def grid_of(tokens: Shape, like: Shape = ()) -> tuple[int, int] | None:
    """Height and width of tokens that form a grid, None where they form none.

    Args:
        tokens: shape (L, C).
        like: shape of maps, whose grid is tried first.
    """
    for extra in EXTRA_TOKENS:
        if len(like) == 3 and tokens[0] - extra == like[1] * like[2]:
            return like[1], like[2]
    for extra in EXTRA_TOKENS:
        side = math.isqrt(max(tokens[0] - extra, 0))
        if side and side * side == tokens[0] - extra:
            return side, side
    return None


def _as_maps(shape: Shape, other: Shape) -> Layout:
    if len(shape) == 3:
        return Layout()
    grid = (1, 1) if len(shape) == 1 else grid_of(shape, other)
    if grid is None:
        raise _impossible(shape, other, f"{shape[0]} tokens form no square grid")
    return Layout("maps", grid)


def _as_vector(shape: Shape) -> Layout:
    return Layout() if len(shape) == 1 else Layout("vector")


def width(shape: Shape) -> int:
    """Channels of features of that shape."""
    return shape[1] if len(shape) == 2 else shape[0]


def with_width(shape: Shape, channels: int) -> Shape:
    """The same shape with other channels."""
    return (shape[0], channels) if len(shape) == 2 else (channels, *shape[1:])


def _positions(shape: Shape) -> Shape:
    return shape[:1] if len(shape) == 2 else shape[1:]


def _meeting(student: Shape, teacher: Shape) -> Shape | None:
    """The smaller grid, axis by axis; None where there is nothing to pool."""
    ours, theirs = _positions(student), _positions(teacher)
    smaller = tuple(min(pair) for pair in zip(ours, theirs, strict=True))
    return None if ours == theirs else smaller


def _resized(shape: Shape, size: Shape | None) -> Shape:
    if size is None:
        return shape
    return (*size, shape[1]) if len(shape) == 2 else (shape[0], *size)


def _pool(x: Tensor, size: Shape) -> Tensor:
    if x.dim() == 3:
        if x.shape[1] == size[0]:
            return x
        return adaptive_avg_pool1d(x.transpose(1, 2), size[0]).transpose(1, 2)
    if tuple(x.shape[2:]) == size:
        return x
    pool = nn.AdaptiveAvgPool2d if x.dim() == 4 else nn.AdaptiveAvgPool3d
    pooled: Tensor = pool(size)(x)
    return pooled


def _layer(student: int, teacher: int, rank: int, kind: Kind) -> nn.Module | None:
    """The trained map of channels, None where none is wanted."""
    if kind == "none" and student != teacher:
        raise InputError(
            f"the student's features have {student} channels and the teacher's {teacher}: "
            f"this loss needs an adapter, leave `adapter` at auto"
        )
    if kind == "none" or (kind in ("auto", "norm") and student == teacher):
        return None
    first = _pointwise(student, teacher, rank)
    if kind == "norm":
        return nn.Sequential(first, _NORMS[rank](teacher))
    if kind == "mlp":
        return nn.Sequential(first, nn.ReLU(), _pointwise(teacher, teacher, rank))
    return first


def _pointwise(student: int, teacher: int, rank: int) -> nn.Module:
    if rank < 3:
        return nn.Linear(student, teacher)
    return (nn.Conv2d if rank == 3 else nn.Conv3d)(student, teacher, 1)


class _TokenNorm(nn.BatchNorm1d):
    """Batch normalization of tokens (B, L, C) over batch and tokens."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


_NORMS = {1: nn.BatchNorm1d, 2: _TokenNorm, 3: nn.BatchNorm2d, 4: nn.BatchNorm3d}


def _impossible(student: Shape, teacher: Shape, reason: str) -> InputError:
    return InputError(
        f"no adapter maps features of shape {student} to {teacher} ({reason}): choose other taps"
    )
