"""What the reference networks share: convolution units, the global average, option checks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from limbeck.errors import InputError


def chain(**layers: nn.Module) -> nn.Sequential:
    """The layers one after another; their names are the module paths to tap."""
    return nn.Sequential(OrderedDict(layers))


def conv(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1, bias: bool = False
) -> nn.Conv2d:
    """A convolution that keeps the size at stride 1 (odd kernels)."""
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=bias)


def unit(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """Convolution, batch normalization, ReLU."""
    norm = nn.BatchNorm2d(outputs)
    return [conv(inputs, outputs, kernel, stride, groups), norm, nn.ReLU()]


def linear_unit(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """Convolution and batch normalization, without an activation."""
    return unit(inputs, outputs, kernel, stride, groups)[:-1]


def halve() -> nn.MaxPool2d:
    """Maximum over 2x2 pixels; rounds sizes up, so that one pixel stays one pixel."""
    return nn.MaxPool2d(2, ceil_mode=True)


class GlobalAverage(nn.Module):
    """Mean over all pixels: (B, C, H, W) to (B, C)."""

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return x.mean((2, 3))


def he_initialize(model: nn.Sequential) -> nn.Sequential:
    """Draw all convolutions as in He et al. 2015 (arXiv:1502.01852, section 2.2), fan-out mode."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


def as_widths(value: int | Sequence[int], count: int | None = None) -> tuple[int, ...]:
    """The option `widths` as positive integers, `count` of them where it is given.

    Raises:
        InputError: anything else.
    """
    widths = (value,) if isinstance(value, int) else tuple(value)
    whole = all(isinstance(width, int) and width > 0 for width in widths)
    if not widths or not whole or count not in (None, len(widths)):
        number = "" if count is None else f"{count} "
        raise InputError(
            f"the option 'widths' must be {number}positive whole numbers such as "
            f"{','.join(['16', '32', '64', '128'][: count or 2])}, got {value!r}"
        )
    return widths
