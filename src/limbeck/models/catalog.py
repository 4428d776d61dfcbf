"""The names of the reference networks. Torch is not imported here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Network:
    """Where a reference network is built.

    Attributes:
        function: `package.module:function`.
        fixed: the arguments that the name stands for; a user cannot change them.
    """

    function: str
    fixed: Mapping[str, Any] = field(default_factory=dict)


_RESNET = "limbeck.models.resnet:resnet"
_WIDE = "limbeck.models.wide_resnet:wide_resnet"
_VGG = "limbeck.models.vgg:vgg"

NETWORKS: dict[str, Network] = {
    **{f"resnet{n}": Network(_RESNET, {"depth": n}) for n in (8, 14, 20, 32, 44, 56, 110)},
    **{
        f"resnet{depth}x4": Network(
            _RESNET, {"depth": depth, "widths": (32, 64, 128, 256), "projection": True}
        )
        for depth in (8, 32)
    },
    **{
        f"wrn-{depth}-{width}": Network(_WIDE, {"depth": depth, "width": width})
        for depth, width in ((16, 1), (16, 2), (28, 2), (40, 1), (40, 2))
    },
    "vgg8": Network(_VGG, {"convolutions": 1}),
    "vgg13": Network(_VGG, {"convolutions": 2}),
    "mobilenetv2": Network("limbeck.models.mobilenet:mobilenetv2"),
    "shufflenetv1": Network("limbeck.models.shufflenet:shufflenetv1"),
    "shufflenetv2": Network("limbeck.models.shufflenet:shufflenetv2"),
    "convnet": Network("limbeck.models.small:convnet"),
    "mlp": Network("limbeck.models.small:mlp"),
    "text": Network("limbeck.models.text:text"),
}
"""What `limbeck:NAME` may name."""
