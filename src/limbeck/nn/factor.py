"""The two networks of factor transfer: the paraphraser of a teacher and a student's translator.

Both work on maps by 3x3 convolutions (``dims=2``; 1 and 3 for sequences and volumes), or on
vectors and token by token by linear layers (``dims=0``). LeakyReLU(0.1) follows every layer, and
there is no normalization, as in Jangho-Kim/Factor-Transfer-pytorch@19cce26.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from limbeck.errors import InputError

Dims = Literal[0, 1, 2, 3]

SLOPE = 0.1
_CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


def factor_channels(channels: int, rate: float) -> int:
    """Channels of a factor, `rate` times those of the features, rounded half to even.

    Raises:
        InputError: nothing would be left.
    """
    if rate <= 0:
        raise InputError(f"the rate of a factor must be above 0, got {rate}")
    factor = round(rate * channels)
    if factor < 1:
        least = math.ceil(50 / channels + 1e-9) / 100
        raise InputError(
            f"rate {rate:g} of {channels} channels leaves no factor channel: use at least {least:g}"
        )
    return factor


class Paraphraser(nn.Module):
    """An autoencoder of a teacher's features; what it encodes is the teacher's factor.

    Args:
        channels: of the teacher's features.
        rate: k, channels of the factor over those of the features.
        dims: axes to convolve over, 0 for linear layers on the last axis.
        signed: leave out the last activation, which lets little of a negative value through.

    Shape:
        (B, channels, ...) to the same; channels last with ``dims=0``.
    """

    def __init__(
        self, channels: int, rate: float = 0.5, *, dims: Dims = 2, signed: bool = False
    ) -> None:
        super().__init__()
        factor = factor_channels(channels, rate)
        self.encoder = _activated([channels, channels, factor, factor], dims)
        self.decoder = _activated([factor, factor, channels, channels], dims, transposed=True)
        if signed:
            self.decoder.pop(-1)

    def encode(self, features: Tensor) -> Tensor:
        """The factor of these features."""
        factor: Tensor = self.encoder(features)
        return factor

    def forward(self, features: Tensor) -> Tensor:
        """The features as the factor restores them."""
        restored: Tensor = self.decoder(self.encode(features))
        return restored


class Translator(nn.Module):
    """Three layers that turn the student's features into a factor; left behind at export.

    Args:
        student: channels in.
        factor: channels out, those of the teacher's factor.
        dims: as of the paraphraser, but for the student's features.
    """

    def __init__(self, student: int, factor: int, *, dims: Dims = 2) -> None:
        super().__init__()
        self.layers = _activated([student, student, factor, factor], dims)

    def forward(self, features: Tensor) -> Tensor:
        """The student's factor."""
        factor: Tensor = self.layers(features)
        return factor


def _activated(widths: Sequence[int], dims: Dims, *, transposed: bool = False) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width, after in itertools.pairwise(widths):
        layers += [_layer(width, after, dims, transposed), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers)


def _layer(width: int, after: int, dims: Dims, transposed: bool) -> nn.Module:
    if dims == 0:
        return nn.Linear(width, after)
    table = _TRANSPOSED if transposed else _CONVOLUTIONS
    return table[dims](width, after, 3, padding=1)
