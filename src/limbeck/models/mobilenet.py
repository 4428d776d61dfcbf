"""MobileNetV2 for small images (Sandler et al. 2018, arXiv:1801.04381)."""

from __future__ import annotations

from torch import Tensor, nn

from limbeck.errors import InputError
from limbeck.models.layers import GlobalAverage, chain, he_initialize, linear_unit, unit

# Table 2 of the paper: expansion, channels, blocks, stride of the first block. The second stage
# keeps its size: images of 32 pixels are too small for the paper's five halvings.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """Expand by 1x1, filter each channel by 3x3, project by 1x1 (section 3.3)."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.branch = nn.Sequential(
            *unit(inputs, hidden, 1),
            *unit(hidden, hidden, 3, stride, groups=hidden),
            *linear_unit(hidden, outputs, 1),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        y: Tensor = self.branch(x)
        return x + y if self.residual else y


def mobilenetv2(*, classes: int, in_channels: int, width: float = 0.5) -> nn.Sequential:
    """MobileNetV2 in the half-width form of the distillation literature.

    As there (HobbitLong/RepDistiller@b13aecc, `models/mobilenetv2.py`), activations are ReLU
    instead of ReLU6, and the first stage has its 1x1 expansion although it expands by 1.

    Args:
        classes: width of the output.
        in_channels: channels of the images.
        width: factor on the channels of the stem and the stages.

    Returns:
        (B, in_channels, H, W) to (B, classes). Taps: `conv1`, `layer1` to `layer7`, `conv2`,
        `pool`.

    Raises:
        InputError: a width below 1/16, which leaves a stage without channels.
    """
    if width < 1 / 16:
        raise InputError(f"the width of a MobileNetV2 must be at least 0.0625, got {width}")
    stem = inputs = int(32 * width)
    stages: dict[str, nn.Module] = {}
    for number, (expansion, channels, blocks, stride) in enumerate(_STAGES, start=1):
        outputs = int(channels * width)
        layers = [InvertedResidual(inputs, outputs, stride, expansion)]
        layers += [InvertedResidual(outputs, outputs, 1, expansion) for _ in range(blocks - 1)]
        stages[f"layer{number}"] = nn.Sequential(*layers)
        inputs = outputs
    last = max(1280, int(1280 * width))
    network = chain(
        conv1=nn.Sequential(*unit(in_channels, stem, 3, stride=2)),
        **stages,
        conv2=nn.Sequential(*unit(inputs, last, 1)),
        pool=GlobalAverage(),
        linear=nn.Linear(last, classes),
    )
    return he_initialize(network)
