"""Wide residual networks (Zagoruyko and Komodakis 2016, arXiv:1605.07146, section 3)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from limbeck.errors import InputError
from limbeck.models.layers import GlobalAverage, chain, conv, he_initialize


class PreactivatedBlock(nn.Module):
    """Normalization and ReLU before each of two 3x3 convolutions; a shortcut around them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = conv(inputs, outputs, stride=stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = conv(outputs, outputs)
        self.shortcut = conv(inputs, outputs, 1, stride) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        active = F.relu(self.bn1(x))
        y: Tensor = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return y + (x if self.shortcut is None else self.shortcut(active))


def wide_resnet(*, depth: int, width: int, classes: int, in_channels: int) -> nn.Sequential:
    """WRN-`depth`-`width` without dropout, `depth` = 6n + 4.

    Args:
        depth: 16, 28, 40, ...
        width: factor on the stages' 16, 32 and 64 channels.
        classes: width of the output.
        in_channels: channels of the images.

    Returns:
        (B, in_channels, H, W) to (B, classes). Taps: `layer1`, `layer2`, `layer3` (before the
        next normalization), `relu` (the last stage after it), `pool`.

    Raises:
        InputError: a depth that is not 6n + 4.
    """
    blocks, rest = divmod(depth - 4, 6)
    if blocks < 1 or rest:
        raise InputError(f"the depth of a wide residual network must be 6n + 4, got {depth}")
    first, second, third = 16 * width, 32 * width, 64 * width

    def stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
        more = [PreactivatedBlock(outputs, outputs, 1) for _ in range(blocks - 1)]
        return nn.Sequential(PreactivatedBlock(inputs, outputs, stride), *more)

    network = chain(
        conv1=conv(in_channels, 16),
        # Where the width does not change, neither does the size: stride 2 always comes with
        # twice the channels, hence with the block's 1x1 shortcut.
        layer1=stage(16, first, 1),
        layer2=stage(first, second, 2),
        layer3=stage(second, third, 2),
        bn1=nn.BatchNorm2d(third),
        relu=nn.ReLU(),
        pool=GlobalAverage(),
        linear=nn.Linear(third, classes),
    )
    return he_initialize(network)
