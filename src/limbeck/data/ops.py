"""Augmentations: each a pure function of (samples, their ids, seed), applied to whole batches.

An operation first plans, from ids and seed alone, what it will do to every sample; its numbers
come from `limbeck.data.random.uniforms`. Then it does so, and computes only in ways whose rounding
does not depend on the other samples of the batch. So the same sample, view and seed give the same
bits in every batch.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import lru_cache
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from limbeck.data.geometry import mirror, shift
from limbeck.data.random import derive, uniforms
from limbeck.recipe.spec import Spec

IMAGES = frozenset({"image"})
VECTORS = frozenset({"table", "text", "array"})

# Luma of ITU-R BT.601, the grey that torchvision and Pillow use.
_LUMA = (0.299, 0.587, 0.114)


def to_float(x: Tensor) -> Tensor:
    """uint8 as float32 in [0, 1] (x / 255); anything else as it is."""
    return x.float().div_(255) if x.dtype == torch.uint8 else x


Plan = tuple[Tensor, ...]
"""What is going to happen to each sample: tensors of N rows."""


class Op(Spec):
    """One augmentation; its fields are its options.

    Attributes:
        name: what recipes call it.
        kinds: the kinds of data it fits.
        light: whether a plan is a few numbers a sample, whatever the samples' size.
    """

    name: ClassVar[str]
    kinds: ClassVar[frozenset[str]]
    light: ClassVar[bool] = True

    @abstractmethod
    def plan(self, index: Tensor, seed: int, shape: torch.Size) -> Plan:
        """What to do to the samples with ids `index` of shape (N,); `shape` is that of one."""

    @abstractmethod
    def apply(self, x: Tensor, plan: Plan) -> Tensor:
        """The augmented samples, from `x` of shape (N, ...) and their plan."""


class Flip(Op):
    """Mirror images left to right with probability `p`."""

    name = "flip"
    kinds = IMAGES
    p: float = Field(0.5, ge=0, le=1)

    def plan(self, index: Tensor, seed: int, shape: torch.Size) -> Plan:  # noqa: D102
        return (uniforms(index, 1, seed=seed)[:, 0] < self.p,)

    def apply(self, x: Tensor, plan: Plan) -> Tensor:  # noqa: D102
        return mirror(x, plan[0])


class Crop(Op):
    """A window of the image's own size out of the padded image, every position equally likely."""

    name = "crop"
    kinds = IMAGES
    padding: int = Field(4, ge=1)
    mode: Literal["zeros", "reflect"] = "zeros"

    def plan(self, index: Tensor, seed: int, shape: torch.Size) -> Plan:  # noqa: D102
        windows = (2 * self.padding + 1) ** 2
        return ((uniforms(index, 1, seed=seed)[:, 0] * windows).long(),)

    def apply(self, x: Tensor, plan: Plan) -> Tensor:  # noqa: D102
        return shift(x, plan[0], padding=self.padding, mode=self.mode)


class FlipCrop(Op):
    """A `Flip` and a `Crop` in one pass over the images, at half the price of two."""

    name = "flip+crop"
    kinds = IMAGES
    flip: Flip
    crop: Crop

    def plan(self, index: Tensor, seed: int, shape: torch.Size) -> Plan:  # noqa: D102
        flip, crop = derive(seed, "flip"), derive(seed, "crop")
        return *self.crop.plan(index, crop, shape), *self.flip.plan(index, flip, shape)

    def apply(self, x: Tensor, plan: Plan) -> Tensor:  # noqa: D102
        window, mirrored = plan
        crop = self.crop
        return shift(x, window, padding=crop.padding, mode=crop.mode, mirrored=mirrored)


class Cutout(Op):
    """Black out a square around a random pixel, clipped at the border.

    Source: DeVries and Taylor, Improved Regularization of Convolutional Neural Networks with
    Cutout, 2017 (arXiv 1708.04552), section 3.2. There the square holds the mean, being cut after
    normalisation; here views see images before it.
    """

    name = "cutout"
    kinds = IMAGES
    size: int = Field(8, ge=1)

    def plan(self, index: Tensor, seed: int, shape: torch.Size) -> Plan:  # noqa: D102
        return (uniforms(index, 2, seed=seed),)

    def apply(self, x: Tensor, plan: Plan) -> Tensor:  # noqa: D102
        size = torch.full((len(x),), self.size, device=x.device)
        return x.masked_fill(_box(x, plan[0], size, size), 0)


class Color(Op):
    """Jitter of brightness, contrast and saturation, in this order, of images in [0, 1].

    A factor is uniform in [1 - strength, 1 + strength]: it scales the image (brightness), its
    difference from the mean grey (contrast) or from its own grey (saturation).
    """

    name = "color"
    kinds = IMAGES
    brightness: float = Field(0.4, ge=0, le=1)
    contrast: float = Field(0.4, ge=0, le=1)
    saturation: float = Field(0.4, ge=0, le=1)

    def plan(self, index: Tensor, seed: int, shape: torch.Size) -> Plan:  # noqa: D102
        swing = uniforms(index, 3, seed=seed) * 2 - 1
        strength = swing.new_tensor([self.brightness, self.contrast, self.saturation])
        return (1 + swing * strength).unbind(1)

    def apply(self, x: Tensor, plan: Plan) -> Tensor:  # noqa: D102
        bright, contrast, saturation = (factor.view(-1, 1, 1, 1) for factor in plan)
        x = (to_float(x) * bright).clamp_(0, 1)
        x = _blend(x, _mean_gray(x), contrast)
        return _blend(x, _gray(x), saturation)


def _blend(x: Tensor, base: Tensor, factor: Tensor) -> Tensor:
    return (x * factor + base * (1 - factor)).clamp_(0, 1)


def _gray(x: Tensor) -> Tensor:
    """Grey of every pixel, shape (N, 1, H, W)."""
    channels = x.shape[1]
    weights = _LUMA if channels == 3 else (1 / channels,) * channels
    gray = x[:, :1] * weights[0]
    for channel in range(1, channels):
        gray = gray + x[:, channel : channel + 1] * weights[channel]
    return gray


def _mean_gray(x: Tensor) -> Tensor:
    """Mean grey of every image, shape (N, 1, 1, 1): a sum of whole numbers, so order is nothing."""
    levels = (_gray(x) * 2.0**20).round()
    total = levels.sum((1, 2, 3), keepdim=True, dtype=torch.float64)
    return (total / (levels[0].numel() * 2.0**20)).to(x.dtype)


class Noise(Op):
    """Add Gaussian noise of standard deviation `std` to every column."""

    name = "noise"
    kinds = VECTORS
    light = False
    std: float = Field(0.1, gt=0)

    def plan(self, index: Tensor, seed: int, shape: torch.Size) -> Plan:  # noqa: D102
        number = uniforms(index, shape.numel(), seed=seed) + 2.0**-25  # in the open (0, 1)
        return (torch.special.ndtri(number) * self.std,)

    def apply(self, x: Tensor, plan: Plan) -> Tensor:  # noqa: D102
        return to_float(x) + plan[0].view(x.shape)


class Dropout(Op):
    """Set every column to zero (the mean, where columns are standardised) with probability `p`."""

    name = "dropout"
    kinds = VECTORS
    light = False
    p: float = Field(0.1, ge=0, lt=1)

    def plan(self, index: Tensor, seed: int, shape: torch.Size) -> Plan:  # noqa: D102
        return (uniforms(index, shape.numel(), seed=seed) < self.p,)

    def apply(self, x: Tensor, plan: Plan) -> Tensor:  # noqa: D102
        return x.masked_fill(plan[0].view(x.shape), 0)


class Mix(Op):
    """An augmentation that mixes each sample with a partner.

    Attributes:
        alpha: the share of the sample itself is drawn from Beta(alpha, alpha).
    """

    alpha: float = Field(1.0, gt=0)

    @abstractmethod
    def mix(self, x: Tensor, partner: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
        """The mixed samples, and the share of `x` in each: float32 of shape (N,)."""

    def apply(self, x: Tensor, plan: Plan) -> Tensor:
        """Not without a partner; `limbeck.data.views.Views` calls `mix`."""
        raise NotImplementedError(self.name)


class Mixup(Mix):
    """Blend each sample with its partner.

    Source: Zhang et al., mixup: Beyond Empirical Risk Minimization, 2018 (arXiv 1710.09412), eq. 2,
    with one share a sample instead of one a batch.
    """

    name = "mixup"
    kinds = IMAGES | VECTORS

    def plan(self, index: Tensor, seed: int, shape: torch.Size) -> Plan:  # noqa: D102
        return (beta(uniforms(index, 1, seed=seed)[:, 0], self.alpha),)

    def mix(self, x: Tensor, partner: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:  # noqa: D102
        share = plan[0]
        weight = share.view(-1, *[1] * (x.ndim - 1))
        return to_float(x) * weight + to_float(partner) * (1 - weight), share


class Cutmix(Mix):
    """Paste a box of the partner into each image; the share is that of the pixels left.

    Source: Yun et al., CutMix, 2019 (arXiv 1905.04899), eq. 1 and 2, with one box an image.
    """

    name = "cutmix"
    kinds = IMAGES

    def plan(self, index: Tensor, seed: int, shape: torch.Size) -> Plan:  # noqa: D102
        numbers = uniforms(index, 3, seed=seed)
        return numbers[:, :2], (1 - beta(numbers[:, 2], self.alpha)).sqrt()

    def mix(self, x: Tensor, partner: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:  # noqa: D102
        center, edge = plan
        height, width = x.shape[2:]
        box = _box(x, center, (edge * height).long(), (edge * width).long())
        pasted = box.sum((1, 2, 3)).float()
        return torch.where(box, partner, x), 1 - pasted / (height * width)


def _box(x: Tensor, center: Tensor, tall: Tensor, wide: Tensor) -> Tensor:
    """Boxes of `tall` x `wide` pixels around uniform centers (N, 2): bool of shape (N, 1, H, W)."""
    inside = []
    for length, number, size in zip(x.shape[2:], center.unbind(1), (tall, wide), strict=True):
        first = ((number * length).long() - size // 2)[:, None]
        place = torch.arange(length, device=x.device)
        inside.append((place >= first) & (place < first + size[:, None]))
    return (inside[0][:, :, None] & inside[1][:, None, :])[:, None]


_KNOTS = 4096


def beta(number: Tensor, alpha: float) -> Tensor:
    """Uniform numbers as draws from Beta(alpha, alpha), by the inverse distribution function.

    Args:
        number: float32 in [0, 1), any shape.
        alpha: > 0; 1 is the uniform distribution.

    Returns:
        float32 in [0, 1], like `number`; interpolated between 4,097 exact quantiles.
    """
    if alpha == 1:
        return number
    table = _quantiles(alpha, number.device)
    place = number * _KNOTS
    low = place.long()
    part = place - low
    return table[low] * (1 - part) + table[low + 1] * part


@lru_cache(maxsize=8)
def _quantiles(alpha: float, device: torch.device) -> Tensor:
    from scipy.special import betaincinv

    quantiles = betaincinv(alpha, alpha, torch.linspace(0, 1, _KNOTS + 1).double().numpy())
    return torch.from_numpy(quantiles).float().to(device)


OPS: dict[str, type[Op]] = {
    op.name: op for op in (Flip, Crop, Cutout, Color, Noise, Dropout, Mixup, Cutmix)
}
"""The augmentations a recipe can name."""
