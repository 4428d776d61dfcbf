"""Residual networks for small images (He et al. 2015, arXiv:1512.03385, section 4.2)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from limbeck.errors import InputError
from limbeck.models.layers import GlobalAverage, as_widths, chain, conv, he_initialize, linear_unit


class PaddedShortcut(nn.Module):
    """Option A: every `stride`-th pixel, the new channels zero. It has no parameters."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        before = (outputs - inputs) // 2
        self.padding = (0, 0, 0, 0, before, outputs - inputs - before)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return F.pad(x[:, :, :: self.stride, :: self.stride], self.padding)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut around them."""

    def __init__(self, inputs: int, outputs: int, stride: int, projection: bool) -> None:
        super().__init__()
        self.conv1 = conv(inputs, outputs, stride=stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = conv(outputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module
        if stride == 1 and inputs == outputs:
            self.shortcut = nn.Identity()
        elif projection:
            self.shortcut = nn.Sequential(*linear_unit(inputs, outputs, 1, stride))
        else:
            self.shortcut = PaddedShortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


def resnet(
    *,
    depth: int,
    classes: int,
    in_channels: int,
    widths: Sequence[int] = (16, 16, 32, 64),
    projection: bool = False,
) -> nn.Sequential:
    """A residual network of `depth` = 6n + 2 layers, at 1, 1/2 and 1/4 of the image's size.

    Args:
        depth: 8, 14, 20, 32, 44, 56, 110, ...
        classes: width of the output.
        in_channels: channels of the images.
        widths: channels of the stem and of the three stages; the paper's by default. The x4
            networks of the distillation literature have (32, 64, 128, 256)
            (HobbitLong/RepDistiller@eedab9d, `models/resnet.py`).
        projection: shortcuts that change shape are 1x1 convolutions with batch normalization
            (option B); otherwise they have no parameters (option A).

    Returns:
        (B, in_channels, H, W) to (B, classes). Taps: `layer1`, `layer2`, `layer3`, `pool`.

    Raises:
        InputError: a depth that is not 6n + 2, or widths that are not four and non-decreasing.
    """
    blocks, rest = divmod(depth - 2, 6)
    if blocks < 1 or rest:
        raise InputError(f"the depth of a residual network must be 6n + 2 such as 20, got {depth}")
    stem, *stages = as_widths(widths, 4)
    if sorted(stages) != stages or stem > stages[0]:
        raise InputError(f"the widths of a residual network must not decrease, got {widths}")

    def stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
        first = BasicBlock(inputs, outputs, stride, projection)
        more = [BasicBlock(outputs, outputs, 1, projection) for _ in range(blocks - 1)]
        return nn.Sequential(first, *more)

    network = chain(
        conv1=conv(in_channels, stem),
        bn1=nn.BatchNorm2d(stem),
        relu=nn.ReLU(),
        layer1=stage(stem, stages[0], 1),
        layer2=stage(stages[0], stages[1], 2),
        layer3=stage(stages[1], stages[2], 2),
        pool=GlobalAverage(),
        linear=nn.Linear(stages[2], classes),
    )
    return he_initialize(network)
