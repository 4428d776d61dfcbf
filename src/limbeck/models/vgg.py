"""VGG networks with batch normalization for small images (Simonyan and Zisserman 2014)."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from limbeck.models.layers import GlobalAverage, chain, conv, halve, he_initialize

_WIDTHS = (64, 128, 256, 512, 512)


def vgg(*, convolutions: int, classes: int, in_channels: int) -> nn.Sequential:
    """Five stages of 3x3 convolutions (arXiv:1409.1556, table 1), one linear layer on their mean.

    As the distillation literature has them (HobbitLong/RepDistiller@eedab9d, `models/vgg.py`):
    three halvings, the last two stages at 1/8 of the image's size, convolutions with a bias.

    Args:
        convolutions: of each stage; 1 makes vgg8, 2 makes vgg13.
        classes: width of the output.
        in_channels: channels of the images.

    Returns:
        (B, in_channels, H, W) to (B, classes). Taps: `layer1` to `layer5` (each before the
        following halving), `pool`.
    """

    def stage(number: int, inputs: int, outputs: int) -> nn.Sequential:
        layers: list[nn.Module] = [halve()] if number in (2, 3, 4) else []
        for width in (inputs, *[outputs] * (convolutions - 1)):
            layers += [conv(width, outputs, bias=True), nn.BatchNorm2d(outputs), nn.ReLU()]
        return nn.Sequential(*layers)

    stages = {
        f"layer{number}": stage(number, inputs, outputs)
        for number, (inputs, outputs) in enumerate(pairwise((in_channels, *_WIDTHS)), start=1)
    }
    network = chain(**stages, pool=GlobalAverage(), linear=nn.Linear(_WIDTHS[-1], classes))
    return he_initialize(network)
