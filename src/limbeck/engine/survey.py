"""Whole splits, clean, as student and teachers see them: what a method calibrates itself on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from limbeck.data.base import Record, Split
from limbeck.data.collect import collect
from limbeck.data.fingerprint import sample_hashes
from limbeck.nn.forward import Forward


@dataclass
class Survey:
    """The samples that a method may look at besides its batches; the test split is none of them.

    Attributes:
        splits: `train`, `val` and perhaps `pool`.
        teacher_outputs: the teachers' logits for a split, computed once; None where unknown.
    """

    splits: Mapping[str, Split] = field(default_factory=dict)
    teacher_outputs: Callable[[str], Tensor | None] = lambda part: None

    def record(self, part: str) -> Record:
        """`index`, `y` where labelled, and `teacher.logits` where known, on the CPU."""
        split = self.splits[part]
        record = {"index": split.ids.cpu()}
        if split.y is not None:
            record["y"] = split.y.cpu()
        if (logits := self.teacher_outputs(part)) is not None:
            record["teacher.logits"] = logits
        return record

    def content(self, part: str) -> Tensor:
        """A hash of the content of every sample."""
        return sample_hashes(self.splits[part])

    def logits(self, part: str, forward: Forward) -> Tensor:
        """What a model in evaluation mode says of every sample, on the CPU."""
        training = forward.model.training
        forward.model.eval()
        try:
            with torch.inference_mode():
                return collect(lambda batch: forward(batch["x"])["logits"], self.splits[part])
        finally:
            forward.model.train(training)
