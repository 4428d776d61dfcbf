"""A teacher's logits for clean samples, computed once and kept in memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from limbeck.data.base import Record
from limbeck.errors import InputError


class Remembered:
    """Answers with logits that a live teacher gave before, found by the sample's id.

    Only right where batches hold samples as they are: an augmented view has its own logits.

    Args:
        ids: of the samples, int64 of shape (N,); each once.
        logits: of the teacher for them, shape (N, C), on the device of the training.
        name: of the teacher.
    """

    live = False
    taps: Sequence[str] = ()

    def __init__(self, ids: Tensor, logits: Tensor, name: str = "teacher") -> None:
        self.name = name
        self._logits = logits
        self._row = torch.full((int(ids.max()) + 1,), -1, device=logits.device)
        self._row[ids.to(logits.device)] = torch.arange(len(ids), device=logits.device)

    def modules(self) -> list[nn.Module]:
        """None: the teacher itself is no longer needed."""
        return []

    def tap(self, paths: Sequence[str]) -> None:
        """Refuse features, which are not kept."""
        if paths:
            raise InputError(f"only the logits of {self.name!r} are kept, not its {paths[0]!r}")

    def __call__(self, batch: Record) -> Record:
        """The logits of the batch's samples."""
        return {"logits": self._logits[self._row[batch["index"]]]}
