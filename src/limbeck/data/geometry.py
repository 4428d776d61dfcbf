"""Whole-batch image geometry: mirror and shift by copying runs of memory, exact to the bit.

A shifted image is one contiguous run of the batch's memory that starts a few pixels early or
late; what such a run brings in from outside the image is then cleared. So a batch is cropped in
one gather of N runs instead of N x C x H rows, which is what makes it about as cheap as
fetching the batch.
"""

from __future__ import annotations

from functools import lru_cache
from threading import get_ident

import torch
import torch.nn.functional as nnf
from torch import Tensor

_LARGEST_TABLE = 1 << 22
"""Bytes of masks that are worth keeping for one image size."""


def mirror(x: Tensor, mirrored: Tensor) -> Tensor:
    """Flip some images of a batch left to right.

    Args:
        x: images of any dtype, shape (N, C, H, W).
        mirrored: bool of shape (N,), which of them.

    Returns:
        A new tensor like `x`.
    """
    images, position = _with_mirrored(x, mirrored)
    return torch.cat(images).index_select(0, position)


def shift(
    x: Tensor,
    window: Tensor,
    *,
    padding: int,
    mode: str = "zeros",
    mirrored: Tensor | None = None,
) -> Tensor:
    """Cut H x W windows out of images padded on every side: the padded random crop.

    Args:
        x: images of any dtype, shape (N, C, H, W).
        window: int64 of shape (N,): number of the window in row-major order, in
            [0, (2 padding + 1)**2); the middle one is the image itself.
        padding: pixels added on each side.
        mode: what the padding holds, `zeros` or `reflect` (the edge is not repeated).
        mirrored: bool of shape (N,): flip these first, in the same pass.

    Returns:
        A new tensor like `x`.
    """
    images, position = _with_mirrored(x, mirrored)
    if mode == "zeros" and x[0, 0].nbytes * (2 * padding + 1) ** 2 <= _LARGEST_TABLE:
        return _masked_windows(images, position, window, padding)
    return _padded_windows(images, position, window, padding, mode)


def _with_mirrored(x: Tensor, mirrored: Tensor | None) -> tuple[list[Tensor], Tensor]:
    """The images, mirrored ones behind them, and which of all these each sample takes."""
    count = len(x)
    position = torch.arange(count, device=x.device)
    if mirrored is None:
        return [x], position
    if x.device.type != "cpu":  # counting the mirrored ones would make the host wait
        return [x, x.flip(-1)], position + count * mirrored
    rows = mirrored.nonzero().squeeze(1)
    behind = torch.arange(count, count + len(rows))
    return [x, x.index_select(0, rows).flip(-1)], position.index_copy_(0, rows, behind)


def _masked_windows(images: list[Tensor], position: Tensor, window: Tensor, padding: int) -> Tensor:
    """Windows over zero padding that is never laid out, by bytes: a mask clears any dtype alike."""
    raw = [image.contiguous().view(torch.uint8) for image in images]
    channels, height, width = raw[0].shape[1:]
    pixel = images[0].element_size()
    size, margin = channels * height * width, padding * (width + pixel)
    memory = _lay_out(raw, 2 * len(position) * size, margin)
    runs = memory.as_strided((len(memory) - size + 1, size), (1, 1))
    steps, inside = _shifts(height, width // pixel, pixel, padding, memory.device)
    taken = runs.index_select(0, position.mul(size).add_(steps.index_select(0, window)))
    channel = taken.view(-1, channels, height * width)
    channel.bitwise_and_(inside.index_select(0, window)[:, None])
    return taken.view(-1, channels, height, width).view(images[0].dtype)


def _lay_out(images: list[Tensor], room: int, margin: int) -> Tensor:
    """The images one behind the other, with a margin at both ends."""
    memory = _kept(room + 2 * margin, images[0].device, get_ident())
    start = margin
    for image in images:
        memory[start : start + image.numel()].copy_(image.view(-1))
        start += image.numel()
    return memory


@lru_cache(maxsize=4)
def _kept(length: int, device: torch.device, thread: int) -> Tensor:
    """Memory that a thread uses again for its next batch: fresh pages cost more than the copy."""
    return torch.zeros(length, dtype=torch.uint8, device=device)


@lru_cache(maxsize=16)
def _shifts(
    height: int, width: int, pixel: int, padding: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """For every window: its first byte, and which bytes of a channel lie inside the image."""
    side = 2 * padding + 1
    steps = torch.arange(side)[:, None] * (width * pixel) + torch.arange(side) * pixel

    def inside(length: int) -> Tensor:
        place = torch.arange(length) + torch.arange(-padding, padding + 1)[:, None]
        return (place >= 0) & (place < length)

    rows, columns = inside(height), inside(width).repeat_interleave(pixel, dim=1)
    masks = rows[:, None, :, None] & columns[None, :, None, :]
    return steps.view(-1).to(device), (masks.view(side**2, -1).to(torch.uint8) * 255).to(device)


def _padded_windows(
    images: list[Tensor], position: Tensor, window: Tensor, padding: int, mode: str
) -> Tensor:
    """Windows over padding that is laid out first: any size and mode."""
    height, width = images[0].shape[2:]
    padded = torch.cat([_pad(image, padding, mode) for image in images])
    channels, tall, wide = padded.shape[1:]
    # From a window's first pixel in the first channel to its last pixel in the last channel.
    size = ((channels - 1) * tall + height - 1) * wide + width
    memory = padded.view(-1)
    runs = memory.as_strided((len(memory) - size + 1, size), (1, 1))
    down = window.div(2 * padding + 1, rounding_mode="floor")
    right = window - down * (2 * padding + 1)
    taken = runs.index_select(0, position * (channels * tall * wide) + down * wide + right)
    shape = (len(position), channels, height, width)
    return taken.as_strided(shape, (size, tall * wide, wide, 1)).contiguous()


def _pad(x: Tensor, padding: int, mode: str) -> Tensor:
    """Pad all sides; torch reflects no uint8, so that is done by index."""
    if mode == "zeros":
        return nnf.pad(x, (padding,) * 4)
    for axis in (2, 3):
        place = torch.arange(-padding, x.shape[axis] + padding, device=x.device).abs()
        last = x.shape[axis] - 1
        x = x.index_select(axis, last - (last - place).abs())
    return x
