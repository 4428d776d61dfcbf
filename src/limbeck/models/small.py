"""Small networks of chosen widths: a multi-layer perceptron and a plain convolutional network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from limbeck.models.layers import GlobalAverage, as_widths, chain, halve, unit


def mlp(
    *, classes: int, shape: Sequence[int], widths: int | Sequence[int] = (64,), dropout: float = 0.0
) -> nn.Sequential:
    """Fully connected layers with ReLU on the flattened sample.

    Args:
        classes: width of the output.
        shape: of one sample.
        widths: units of each hidden layer.
        dropout: share of the hidden units dropped in training, in [0, 1).

    Returns:
        (B, *shape) to (B, classes). Taps: `layer1`, `layer2`, ...
    """
    hidden = as_widths(widths)
    layers: dict[str, nn.Module] = {}
    for number, (inputs, outputs) in enumerate(pairwise((math.prod(shape), *hidden)), start=1):
        drop = [nn.Dropout(dropout)] if dropout else []
        layers[f"layer{number}"] = nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU(), *drop)
    return chain(flatten=nn.Flatten(), **layers, linear=nn.Linear(hidden[-1], classes))


def convnet(
    *, classes: int, in_channels: int, widths: int | Sequence[int] = (16, 32)
) -> nn.Sequential:
    """For each width a 3x3 convolution, batch normalization, ReLU and a halving; then the mean.

    Args:
        classes: width of the output.
        in_channels: channels of the images.
        widths: channels of each layer.

    Returns:
        (B, in_channels, H, W) to (B, classes). Taps: `layer1`, `layer2`, ..., `pool`.
    """
    channels = as_widths(widths)
    layers = {
        f"layer{number}": nn.Sequential(*unit(inputs, outputs), halve())
        for number, (inputs, outputs) in enumerate(pairwise((in_channels, *channels)), start=1)
    }
    return chain(**layers, pool=GlobalAverage(), linear=nn.Linear(channels[-1], classes))
