"""Logits as they are kept, all of them or the top ones with the mass of the rest, and back."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from limbeck.data.base import Record
from limbeck.store.manifest import DTYPES, Dtype

TAILS = ("spread", "renormalize")
"""What `unpack` makes of the classes that were not kept."""

_GONE = 1e4
"""Below the largest logit: a probability of exactly zero in float32, and no NaN in any loss."""


def pack(logits: Tensor, top_k: int | None, dtype: Dtype) -> Record:
    """What a store keeps of a batch of logits.

    Args:
        logits: float, shape (B, C).
        top_k: how many of a row, None or at least C: all.
        dtype: of the kept logits.

    Returns:
        `logits` of shape (B, C); or `values` and `indices` (int16, or int32 for more than 32,767
        classes) of shape (B, K), largest first, and `rest`, the log of the probability of all
        other classes together (float32, shape (B,)).
    """
    kept = DTYPES[dtype]
    if top_k is None or top_k >= logits.shape[-1]:
        return {"logits": _cast(logits, kept)}
    logits = logits.float()
    values, indices = logits.topk(top_k, -1)
    others = logits.scatter(-1, indices, -math.inf)
    small = logits.shape[-1] <= torch.iinfo(torch.int16).max
    return {
        "values": _cast(values, kept),
        "indices": indices.to(torch.int16 if small else torch.int32),
        "rest": others.logsumexp(-1) - logits.logsumexp(-1),
    }


def _cast(values: Tensor, dtype: torch.dtype) -> Tensor:
    """As `dtype`; a finite value stays finite."""
    if dtype == torch.float16:
        largest = torch.finfo(dtype).max
        return torch.where(values.isfinite(), values.clamp(-largest, largest), values).to(dtype)
    return values.to(dtype)


def unpack(kept: Record, classes: int, tail: str = "spread") -> Tensor:
    """Logits over all classes from what `pack` kept.

    The kept classes get the logits that they had. With `spread` the others share their mass
    evenly, so every kept probability is exact; with `renormalize` they get none, and the kept
    ones are scaled up to a sum of one.

    Args:
        kept: `logits`, or `values`, `indices` and `rest`.
        classes: C.
        tail: one of `TAILS`.

    Returns:
        float32, shape (B, C).
    """
    if "logits" in kept:
        return kept["logits"].float()
    values, rest = kept["values"].float(), kept["rest"]
    if tail == "renormalize":
        fill = values[:, :1] - _GONE
    else:
        # The mass m of the tail against 1 - m of the kept: log m - log(1 - m), a share each.
        odds = rest - torch.log(-torch.expm1(rest))
        fill = (values.logsumexp(-1) + odds - math.log(classes - values.shape[-1]))[:, None]
        fill = torch.maximum(fill, values[:, :1] - _GONE)
    return fill.expand(-1, classes).scatter(-1, kept["indices"].long(), values)
