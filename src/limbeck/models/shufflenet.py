"""ShuffleNet for small images, both versions: grouped or split channels that are shuffled."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from limbeck.models.layers import GlobalAverage, chain, linear_unit, unit

_STEM = 24
_GROUPS = 3


class Shuffle(nn.Module):
    """Deals out the channels of `groups` groups in turn; the shape (B, C, H, W) stays."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        grouped = x.reshape(x.shape[0], self.groups, -1, *x.shape[2:])
        return grouped.transpose(1, 2).flatten(1, 2)


class GroupedUnit(nn.Module):
    """Version 1 (figure 2 b, c): a bottleneck of grouped 1x1 convolutions.

    Where the number of channels grows, the size is halved and the average of the input is put
    beside the branch; elsewhere the input is added to it.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.grows = outputs != inputs
        outputs -= inputs if self.grows else 0
        hidden = outputs // 4
        # The stem's channels are too few to be grouped (section 3.2 of the paper).
        groups = 1 if inputs == _STEM else _GROUPS
        self.branch = nn.Sequential(
            *unit(inputs, hidden, 1, groups=groups),
            Shuffle(groups),
            *unit(hidden, hidden, 3, stride=2 if self.grows else 1, groups=hidden),
            *linear_unit(hidden, outputs, 1, groups=_GROUPS),
        )

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        y = self.branch(x)
        return F.relu(torch.cat([y, F.avg_pool2d(x, 3, 2, 1)], 1) if self.grows else y + x)


class SplitUnit(nn.Module):
    """Version 2 (figure 3 c, d): one half of the channels passes, the other is filtered.

    Where the number of channels grows, both halves are made from all channels, at half the size.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.grows = outputs != inputs
        half = outputs // 2
        if self.grows:
            self.side = nn.Sequential(
                *linear_unit(inputs, inputs, 3, stride=2, groups=inputs), *unit(inputs, half, 1)
            )
        self.branch = nn.Sequential(
            *unit(inputs if self.grows else half, half, 1),
            *linear_unit(half, half, 3, stride=2 if self.grows else 1, groups=half),
            *unit(half, half, 1),
        )
        self.shuffle = Shuffle(2)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        side, x = (self.side(x), x) if self.grows else x.chunk(2, 1)
        shuffled: Tensor = self.shuffle(torch.cat([side, self.branch(x)], 1))
        return shuffled


def _stages(
    make: Callable[[int, int], nn.Module], widths: Sequence[int], blocks: Sequence[int]
) -> dict[str, nn.Module]:
    """The three stages by name: the first unit of each changes the channels."""
    stages: dict[str, nn.Module] = {}
    inputs = _STEM
    for number, (outputs, count) in enumerate(zip(widths, blocks, strict=True), start=1):
        units = [make(inputs, outputs), *(make(outputs, outputs) for _ in range(count - 1))]
        stages[f"layer{number}"] = nn.Sequential(*units)
        inputs = outputs
    return stages


def shufflenetv1(*, classes: int, in_channels: int) -> nn.Sequential:
    """ShuffleNet (Zhang et al. 2017, arXiv:1707.01083), 3 groups, 240, 480 and 960 channels.

    In the form of the distillation literature (HobbitLong/RepDistiller@eedab9d,
    `models/ShuffleNetv1.py`): a 1x1 stem that keeps the size, and ReLU after the 3x3 convolutions.

    Args:
        classes: width of the output.
        in_channels: channels of the images.

    Returns:
        (B, in_channels, H, W) to (B, classes). Taps: `layer1`, `layer2`, `layer3`, `pool`.
    """
    return chain(
        conv1=nn.Sequential(*unit(in_channels, _STEM, 1)),
        **_stages(GroupedUnit, (240, 480, 960), (4, 8, 4)),
        pool=GlobalAverage(),
        linear=nn.Linear(960, classes),
    )


def shufflenetv2(*, classes: int, in_channels: int) -> nn.Sequential:
    """ShuffleNetV2 (Ma et al. 2018, arXiv:1807.11164), the 1x form of table 5.

    In the form of the distillation literature (HobbitLong/RepDistiller@eedab9d,
    `models/ShuffleNetv2.py`): a 1x1 stem that keeps the size.

    Args:
        classes: width of the output.
        in_channels: channels of the images.

    Returns:
        (B, in_channels, H, W) to (B, classes). Taps: `layer1`, `layer2`, `layer3`, `conv2`, `pool`.
    """
    return chain(
        conv1=nn.Sequential(*unit(in_channels, _STEM, 1)),
        **_stages(SplitUnit, (116, 232, 464), (4, 8, 4)),
        conv2=nn.Sequential(*unit(464, 1024, 1)),
        pool=GlobalAverage(),
        linear=nn.Linear(1024, classes),
    )
