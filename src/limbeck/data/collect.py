"""Running a model over a whole split, without gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from limbeck.data.base import Record, Split

EVALUATION_BATCH = 512


def collect(
    answer: Callable[[Record], Tensor],
    split: Split,
    on_batch: Callable[[int], None] | None = None,
) -> Tensor:
    """The answers for every sample of `split`, in order.

    Args:
        answer: a batch to logits of shape (B, C).
        split: the samples, on the device of the model already or moved there batch by batch.
        on_batch: told the number of samples after each batch.

    Returns:
        float32 logits of shape (N, C) on the CPU.
    """
    spans = torch.split(torch.arange(len(split)), EVALUATION_BATCH)
    parts = []
    with torch.inference_mode():
        for number, rows in enumerate(spans):
            batch = split.fetch(rows)
            if number + 1 < len(spans):
                split.prefetch(spans[number + 1])
            parts.append(answer(batch).float())
            if on_batch is not None:
                on_batch(len(rows))
    return torch.cat(parts).cpu()
