"""Small trained heads between student and teacher that some feature losses need.

They are trained beside the student and left behind at export. Channels come first in every
signature: the student's, then the teacher's.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from limbeck.errors import InputError
from limbeck.functional.boundaries import ofd_margin
from limbeck.functional.maps import check_choice


class Connector(nn.Sequential):
    """Convolution, batch normalization and, if wanted, ReLU.

    With the defaults the connector of SRRL; without the ReLU that of AB, OFD and ICKD; with
    ``bias=True`` and a kernel that fits the grids the regressor of FitNets.

    Args:
        student: channels in.
        teacher: channels out.
        kernel: side of the convolution's kernel.
        stride: its stride.
        padding: its padding.
        bias: whether it has one.
        relu: whether a ReLU comes last.

    Shape:
        (B, student, H, W) to (B, teacher, H', W').
    """

    conv: nn.Conv2d
    norm: nn.BatchNorm2d

    def __init__(
        self,
        student: int,
        teacher: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        padding: int = 0,
        bias: bool = False,
        relu: bool = True,
    ) -> None:
        layers: dict[str, nn.Module] = {
            "conv": nn.Conv2d(student, teacher, kernel, stride, padding, bias=bias),
            "norm": nn.BatchNorm2d(teacher),
        }
        if relu:
            layers["relu"] = nn.ReLU()
        super().__init__(OrderedDict(layers))


class MarginConnector(Connector):
    """The connector of OFD; `margin`, for `ofd_loss`, is read off the teacher's normalization.

    Args:
        student: channels in.
        norm: the teacher's last batch normalization before the tap; its channels come out.

    Shape:
        (B, student, H, W) to (B, teacher, H, W).
    """

    margin: Tensor

    def __init__(self, student: int, norm: nn.BatchNorm2d) -> None:
        if norm.weight is None or norm.bias is None:
            raise InputError("the margin of OFD needs a batch normalization with weight and bias")
        super().__init__(student, norm.num_features, relu=False)
        self.register_buffer("margin", ofd_margin(norm.weight, norm.bias))


class VariationalHead(nn.Module):
    """Mean and variance of the teacher's features, as `vid_loss` wants them.

    The mean comes from three 1x1 convolutions; `log_scale` holds one variance a channel.

    Args:
        student: channels in.
        teacher: channels out.
        variance: of every channel at the start.
        eps: the least variance, as in `vid_loss`.

    Shape:
        (B, student, H, W) to (B, teacher, H, W); bring both grids together first
        (`limbeck.functional.match_grids`).
    """

    def __init__(
        self, student: int, teacher: int, *, variance: float = 5.0, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.mean = nn.Sequential(
            nn.Conv2d(student, teacher, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(teacher, teacher, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(teacher, teacher, 1, bias=False),
        )
        start = math.log(math.expm1(variance - eps))
        self.log_scale = nn.Parameter(torch.full((teacher,), start))

    def forward(self, features: Tensor) -> Tensor:
        """The predicted mean."""
        mean: Tensor = self.mean(features)
        return mean


class MaskedGenerator(nn.Module):
    """Restores the teacher's maps from the student's with a part masked out, for `mgd_loss`.

    A 1x1 convolution where channels differ, the mask, then 3x3, ReLU, 3x3 convolutions.

    Args:
        student: channels in.
        teacher: channels out.
        ratio: masked share; the paper's 0.75 for "positions", 0.15 for "channels".
        mask: what is hidden: "positions", the same in all channels, for dense prediction, or
            whole "channels", for classification.
    """

    def __init__(
        self,
        student: int,
        teacher: int,
        *,
        ratio: float = 0.75,
        mask: Literal["positions", "channels"] = "positions",
    ) -> None:
        super().__init__()
        check_choice("mask", mask, "positions", "channels")
        if not 0 <= ratio < 1:
            raise InputError(f"the masked share of MGD must lie in [0, 1), got {ratio}")
        self.teacher = teacher
        self.ratio = ratio
        self.masked = mask
        self.align = nn.Conv2d(student, teacher, 1) if student != teacher else nn.Identity()
        self.generation = nn.Sequential(
            nn.Conv2d(teacher, teacher, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(teacher, teacher, 3, padding=1),
        )

    def mask_shape(self, maps: Tensor) -> tuple[int, int, int, int]:
        """How many uniform numbers `forward` wants for these student maps."""
        batch, _, height, width = maps.shape
        if self.masked == "positions":
            return batch, 1, height, width
        return batch, self.teacher, 1, 1

    def mask(self, uniform: Tensor) -> Tensor:
        """1 where a value stays and 0 where it is hidden, from uniform numbers in [0, 1)."""
        stays = uniform <= 1 - self.ratio if self.masked == "positions" else uniform >= self.ratio
        return stays.to(uniform.dtype)

    def forward(self, maps: Tensor, uniform: Tensor) -> Tensor:
        """Maps with the teacher's channels, (B, teacher, H, W).

        Args:
            maps: the student's, (B, student, H, W).
            uniform: numbers in [0, 1) of the shape `mask_shape`, from the step's own generator.
        """
        aligned = self.align(maps)
        restored: Tensor = self.generation(aligned * self.mask(uniform).to(aligned.dtype))
        return restored


class OrthogonalProjector(nn.Linear):
    """Linear map whose rows or columns stay orthonormal while it is trained, for `vkd_loss`.

    Args:
        student: features in.
        teacher: features out.

    Shape:
        (..., student) to (..., teacher).
    """

    def __init__(self, student: int, teacher: int) -> None:
        super().__init__(student, teacher, bias=False)
        orthogonal(self)


def bottleneck(student: int, middle: int, teacher: int, *, last: bool) -> nn.Sequential:
    """1x1, 3x3, 1x1 convolutions, normalization and ReLU after each, after the third if `last`."""
    tail = [nn.BatchNorm2d(teacher), nn.ReLU()] if last else []
    return nn.Sequential(
        nn.Conv2d(student, middle, 1, bias=False),
        nn.BatchNorm2d(middle),
        nn.ReLU(),
        nn.Conv2d(middle, middle, 3, padding=1, bias=False),
        nn.BatchNorm2d(middle),
        nn.ReLU(),
        nn.Conv2d(middle, teacher, 1, bias=False),
        *tail,
    )


class ReuseProjector(nn.Module):
    """Student maps for the teacher's own classifier (SimKD: Chen et al., CVPR 2022).

    Unlike the other heads it stays in the exported student, with the teacher's classifier.

    Args:
        student: channels in.
        teacher: channels out.
        factor: the middle of the bottleneck has ``teacher // factor`` channels.

    Shape:
        (B, student, H, W) to (B, teacher, H, W).
    """

    def __init__(self, student: int, teacher: int, *, factor: int = 2) -> None:
        super().__init__()
        if not 1 <= factor <= teacher:
            raise InputError(
                f"the factor of SimKD's projector must lie between 1 and the {teacher} channels "
                f"of the teacher, got {factor}"
            )
        self.layers = bottleneck(student, teacher // factor, teacher, last=True)

    def forward(self, maps: Tensor) -> Tensor:
        """The projected maps."""
        projected: Tensor = self.layers(maps)
        return projected


class Exit(nn.Module):
    """A classifier on one stage of the student, for `ofa_loss` (OFA-KD: Hao et al., NeurIPS 2023).

    Maps go through separable convolutions that halve the grid and double the channels, tokens
    through attention blocks; then positions are averaged.

    Args:
        channels: of the stage.
        classes: K.
        depth: blocks before the average; earlier stages want more.
        tokens: the stage gives tokens (B, L, C) instead of maps (B, C, H, W).
    """

    def __init__(
        self, channels: int, classes: int, *, depth: int = 1, tokens: bool = False
    ) -> None:
        super().__init__()
        widths = [channels] * (depth + 1) if tokens else [channels * 2**i for i in range(depth + 1)]
        block = _attention if tokens else _separable
        self.blocks = nn.Sequential(*map(block, widths[:-1], widths[1:]))
        self.classifier = nn.Linear(widths[-1], classes)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, K)."""
        features = self.blocks(features)
        pooled = features.mean((2, 3)) if features.dim() == 4 else features.mean(1)
        logits: Tensor = self.classifier(pooled)
        return logits


def _separable(channels: int, out: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, stride=2, padding=1, groups=channels, bias=False),
        nn.Conv2d(channels, out, 1, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(),
    )


def _attention(channels: int, out: int) -> nn.Module:
    heads = math.gcd(channels, 4)
    return nn.TransformerEncoderLayer(
        out, heads, 4 * channels, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
