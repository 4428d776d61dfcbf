"""Embeddings that a loss remembers from earlier steps: the two memories of CRD."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from limbeck.data.random import generator
from limbeck.functional._common import Reduction
from limbeck.functional.contrastive import crd_estimation, crd_normalizers, crd_row_scores
from limbeck.functional.maps import unit


class Embedding(nn.Module):
    """Features as a vector of norm one: flattened, mapped linearly, normalized.

    Args:
        features: numbers a sample in.
        size: d, numbers out.

    Shape:
        (B, ...) to (B, d).
    """

    def __init__(self, features: int, size: int = 128) -> None:
        super().__init__()
        self.linear = nn.Linear(features, size)

    def forward(self, features: Tensor) -> Tensor:
        """The embeddings, float32 or better."""
        embedded = self.linear(features.flatten(1))
        return unit(embedded.to(torch.promote_types(embedded.dtype, torch.float32)))


class ContrastMemory(nn.Module):
    """Remembers one student and one teacher embedding a training sample, and gives `crd_loss`.

    In training mode each call also moves the rows of its samples towards their new embeddings.
    With several ranks each keeps its own memory.

    Args:
        samples: n, the number of training samples; ids run from 0 to n - 1.
        size: d of the embeddings.
        negatives: K, other samples a sample is told apart from.
        temperature: of the scores.
        momentum: share of the old row in the new one.
        seed: of the rows at the start.
    """

    student_rows: Tensor
    teacher_rows: Tensor
    normalizers: Tensor

    def __init__(
        self,
        samples: int,
        size: int = 128,
        *,
        negatives: int = 16384,
        temperature: float = 0.07,
        momentum: float = 0.5,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.negatives = negatives
        self.temperature = temperature
        self.momentum = momentum
        bound = math.sqrt(3 / size)
        for side in ("student", "teacher"):
            start = torch.rand(samples, size, generator=generator(seed, "contrast memory", side))
            self.register_buffer(f"{side}_rows", (2 * start - 1) * bound)
        self.register_buffer("normalizers", torch.full((2,), -1.0))

    def draw(self, index: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """K random samples for each of `index`, with replacement, (B, K)."""
        shape = (len(index), self.negatives)
        return torch.randint(
            len(self.student_rows), shape, generator=generator, device=index.device
        )

    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        index: Tensor,
        negatives: Tensor,
        *,
        reduction: Reduction = "mean",
    ) -> Tensor:
        """The loss of a batch.

        Args:
            student: embeddings (B, d) of norm one.
            teacher: embeddings (B, d) of norm one.
            index: sample ids (B,), each at most once.
            negatives: sample ids (B, K), see `draw`.
            reduction: "mean", "sum" or "none" over the batch.
        """
        picked = torch.cat([index[:, None], negatives], dim=1)
        scores = (
            crd_row_scores(student, self.teacher_rows, picked, self.temperature),
            crd_row_scores(teacher, self.student_rows, picked, self.temperature),
        )
        normalizers = self._normalizers(scores)
        loss = crd_estimation(scores, normalizers, len(self.student_rows), reduction=reduction)
        if self.training:
            self._remember(student, teacher, index, normalizers)
        return loss

    @torch.no_grad()
    def _normalizers(self, scores: tuple[Tensor, Tensor]) -> Tensor:
        """The constants of the first batch; they are chosen on the device, without asking it."""
        first = crd_normalizers(scores, len(self.student_rows))
        return torch.where(self.normalizers > 0, self.normalizers.to(first.dtype), first)

    @torch.no_grad()
    def _remember(
        self, student: Tensor, teacher: Tensor, index: Tensor, normalizers: Tensor
    ) -> None:
        self.normalizers.copy_(normalizers)
        for rows, embedded in ((self.student_rows, student), (self.teacher_rows, teacher)):
            moved = self.momentum * rows[index] + (1 - self.momentum) * embedded.to(rows.dtype)
            rows.index_copy_(0, index, unit(moved))
