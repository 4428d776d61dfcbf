"""What no training survives, looked for before it starts."""

from __future__ import annotations

import torch

from limbeck.data.base import ArraySplit, Split
from limbeck.errors import InputError

_ROWS = 4096


def check_finite(split: Split, what: str) -> None:
    """Refuse NaN and infinite inputs; streamed samples are checked as they are read.

    Raises:
        InputError: says in how many samples, and which is the first.
    """
    if not isinstance(split, ArraySplit) or not split.x.is_floating_point():
        return
    bad = torch.cat([~part.flatten(1).isfinite().all(1) for part in torch.split(split.x, _ROWS)])
    if bad.any():
        first = int(split.ids[bad.nonzero()[0, 0]])
        count = int(bad.sum())
        raise InputError(
            f"{count} of {len(split)} samples of {what} hold NaN or infinite values, the first at "
            f"index {first}; remove or fill them"
        )
