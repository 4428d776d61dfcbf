"""The input adapter: samples in the data's own scale, as one particular model wants them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from limbeck.errors import InputError


class InputAdapter(nn.Module):
    """Images in [0, 1] to a model's normalisation and resolution; other samples unchanged.

    Args:
        mean: per-channel mean to subtract, None: no normalisation.
        std: per-channel standard deviation to divide by, given with `mean`.
        size: (height, width) to resize to, None: as the data is.

    Shape:
        (B, C, H, W) to (B, C, size), uint8 read as [0, 255]; any other shape where all are None.
    """

    mean: Tensor | None
    inverse_std: Tensor | None

    def __init__(
        self,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        if (mean is None) != (std is None) or (mean and std and len(mean) != len(std)):
            raise InputError(f"an input needs mean and std of equal length, got {mean} and {std}")
        if std and min(std) <= 0:
            raise InputError(f"the std of an input must be positive, got {std}")
        self.size = size
        self.key = (mean, std, size)
        self.register_buffer("mean", self._column(mean), persistent=False)
        inverse = None if std is None else tuple(1.0 / value for value in std)
        self.register_buffer("inverse_std", self._column(inverse), persistent=False)

    @staticmethod
    def _column(values: tuple[float, ...] | None) -> Tensor | None:
        return None if values is None else torch.tensor(values).view(-1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        if x.dtype == torch.uint8:
            x = x.float().mul_(1 / 255)
        if self.size is not None and tuple(x.shape[-2:]) != self.size:
            x = F.interpolate(x, self.size, mode="bilinear", antialias=True)
        if self.mean is not None and self.inverse_std is not None:
            x = (x - self.mean) * self.inverse_std
        return x
