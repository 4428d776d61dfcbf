"""Where the samples of a batch stand in a memory that keeps one row a training sample."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Rows(nn.Module):
    """From sample ids to rows 0 .. n - 1.

    Args:
        ids: the ids of the n labelled training samples.
    """

    ids: Tensor

    def __init__(self, ids: Tensor) -> None:
        super().__init__()
        self.register_buffer("ids", ids.sort().values, persistent=False)

    def __len__(self) -> int:
        return len(self.ids)

    def forward(self, index: Tensor) -> Tensor:
        """The row of each id."""
        return torch.searchsorted(self.ids, index)
