"""Heads that see several layers at once: ReviewKD's fusion and SemCKD's layer association."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from limbeck.errors import InputError
from limbeck.functional._common import full_precision
from limbeck.functional.maps import match_grids, unit
from limbeck.nn.heads import Connector, bottleneck


class FusionBlock(nn.Module):
    """Attention-based fusion (ABF) of one layer with the deeper ones (ReviewKD).

    Args:
        student: channels of the student's layer.
        middle: channels in which layers are fused, the same in all blocks.
        teacher: channels out.
        fuse: whether a deeper layer comes in; the deepest has none.
    """

    def __init__(self, student: int, middle: int, teacher: int, *, fuse: bool = True) -> None:
        super().__init__()
        self.reduce = Connector(student, middle, relu=False)
        self.expand = Connector(middle, teacher, kernel=3, padding=1, relu=False)
        self.attention = nn.Conv2d(2 * middle, 2, 1) if fuse else None
        for part in (self.reduce, self.expand):
            nn.init.kaiming_uniform_(part.conv.weight, a=1)

    def forward(
        self, features: Tensor, deeper: Tensor | None, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """The teacher-shaped maps on the grid `size`, and what the next shallower block fuses."""
        mixed = self.reduce(features)
        if self.attention is not None and deeper is not None:
            deeper = interpolate(deeper, features.shape[2:], mode="nearest")
            shares = self.attention(torch.cat([mixed, deeper], 1)).sigmoid()
            mixed = mixed * shares[:, :1] + deeper * shares[:, 1:]
        if mixed.shape[2:] != size:
            mixed = interpolate(mixed, size, mode="nearest")
        return self.expand(mixed), mixed


class ReviewFusion(nn.Module):
    """Fuses a student's layers from the deepest to the shallowest, for `reviewkd_hcl_loss`.

    Args:
        student: channels of the student's layers, the shallowest first.
        teacher: channels of the teacher's layers.
        sizes: grids (H, W) of the teacher's layers.
    """

    def __init__(
        self, student: Sequence[int], teacher: Sequence[int], sizes: Sequence[tuple[int, int]]
    ) -> None:
        super().__init__()
        if not len(student) == len(teacher) == len(sizes) > 0:
            raise InputError(
                f"ReviewKD pairs layers one to one, got {len(student)} of the student, "
                f"{len(teacher)} of the teacher and {len(sizes)} grids"
            )
        middle = min(512, student[-1])
        self.sizes = list(sizes)
        self.blocks = nn.ModuleList(
            FusionBlock(s, middle, t, fuse=layer < len(student) - 1)
            for layer, (s, t) in enumerate(zip(student, teacher, strict=True))
        )

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Maps of the teacher's shapes, the shallowest first."""
        fused: list[Tensor] = []
        deeper: Tensor | None = None
        for block, layer, size in zip(
            reversed(self.blocks), reversed(features), reversed(self.sizes), strict=True
        ):
            out, deeper = block(layer, deeper, size)
            fused.insert(0, out)
        return fused


class LayerAssociation(nn.Module):
    """Which teacher layer teaches which student layer, by attention (SemCKD: Chen et al., 2021).

    Queries and keys are embedded rows of the batch's similarity matrices. So the batch size is a
    part of the network; a smaller batch is filled up with zero similarities.

    Args:
        student: channels of the S student layers.
        teacher: channels of the T teacher layers.
        batch: the training's batch size.
        factor: queries and keys have ``batch // factor`` entries.
        softness: divides the products of queries and keys.
    """

    def __init__(
        self,
        student: Sequence[int],
        teacher: Sequence[int],
        *,
        batch: int,
        factor: int = 4,
        softness: float = 1.0,
    ) -> None:
        super().__init__()
        width = batch // factor
        if width < 1:
            raise InputError(f"SemCKD needs a batch of at least factor = {factor}, got {batch}")
        self.batch = batch
        self.softness = softness
        self.queries = nn.ModuleList(_embedding(batch, width) for _ in student)
        self.keys = nn.ModuleList(_embedding(batch, width) for _ in teacher)
        self.regressors = nn.ModuleList(
            nn.ModuleList(bottleneck(s, 2 * t, t, last=False) for t in teacher) for s in student
        )

    def forward(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor]
    ) -> tuple[list[list[Tensor]], list[list[Tensor]], Tensor]:
        """The arguments of `semckd_loss`.

        Args:
            student: S maps (B, C, H, W).
            teacher: T maps; they are detached.

        Returns:
            S lists of T student maps in the teacher layers' shapes, the teacher maps on the same
            grids, and the attention (B, S, T).
        """
        teacher = [features.detach() for features in teacher]
        projected, targets = [], []
        for features, regressors in zip(student, self.regressors, strict=True):
            row = cast(nn.ModuleList, regressors)
            pairs = [match_grids(features, t) for t in teacher]
            projected.append([r(s) for r, (s, _) in zip(row, pairs, strict=True)])
            targets.append([t for _, t in pairs])
        return projected, targets, self.attention(student, teacher)

    def attention(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """The share of each teacher layer for each student layer and sample, (B, S, T)."""
        queries = self._embedded(self.queries, student)
        keys = self._embedded(self.keys, teacher)
        return (queries @ keys.transpose(1, 2) / self.softness).softmax(-1)

    def _embedded(self, embeddings: nn.ModuleList, layers: Sequence[Tensor]) -> Tensor:
        rows = [
            unit(embedding(self._similarity(features)))
            for embedding, features in zip(embeddings, layers, strict=True)
        ]
        return torch.stack(rows, dim=1)

    def _similarity(self, features: Tensor) -> Tensor:
        rows = features.flatten(1)
        if len(rows) > self.batch:
            raise InputError(
                f"SemCKD was built for batches of {self.batch} samples, got {len(rows)}"
            )
        return pad(_gram(rows), (0, self.batch - len(rows)))


@full_precision
def _gram(rows: Tensor) -> Tensor:
    return rows @ rows.T


def _embedding(batch: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(batch, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))
