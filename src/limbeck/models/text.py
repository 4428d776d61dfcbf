"""A small text encoder: token embeddings, their mean, and self-attention where it is asked for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from limbeck.errors import InputError

PADDING = 0
"""The token id that stands for no token."""


class Attention(nn.Module):
    """Self-attention of several heads (Vaswani et al. 2017, arXiv:1706.03762, section 3.2)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.inward = nn.Linear(width, 3 * width)
        self.outward = nn.Linear(width, width)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        """`x` of shape (B, L, width), `keep` (B, L) true where there is a token."""
        split = self.inward(x).unflatten(-1, (3, self.heads, -1))
        query, key, value = split.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=keep[:, None, None])
        outward: Tensor = self.outward(mixed.transpose(1, 2).flatten(2))
        return outward


class EncoderLayer(nn.Module):
    """Attention and a two-layer perceptron, each normalized before and added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.perceptron = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:  # noqa: D102
        x = x + self.attention(self.norm1(x), keep)
        y: Tensor = self.perceptron(self.norm2(x))
        return x + y


class MaskedMean(nn.Module):
    """Mean over the tokens that are there, zero where a text has none: (B, L, D) to (B, D)."""

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:  # noqa: D102
        weight = keep.to(x.dtype)[..., None]
        return (x * weight).sum(1) / weight.sum(1).clamp(min=1)


class TextEncoder(nn.Module):
    """See `text`."""

    def __init__(
        self, classes: int, length: int, vocabulary: int, width: int, layers: int, heads: int
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width, padding_idx=PADDING)
        # A mean alone does not see the order, so only attention gets positions.
        self.position = nn.Parameter(0.02 * torch.randn(length, width)) if layers else None
        self.layers = nn.ModuleList(EncoderLayer(width, heads) for _ in range(layers))
        self.pool = MaskedMean()
        self.linear = nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:  # noqa: D102
        keep = tokens != PADDING
        x = self.embedding(tokens)
        if self.position is not None:
            x = x + self.position[: tokens.shape[1]]
        # A text without any token attends to its first place: softmax over nothing is NaN.
        attend = keep | (torch.arange(tokens.shape[1], device=tokens.device) == 0)
        for layer in self.layers:
            x = layer(x, attend)
        logits: Tensor = self.linear(self.pool(x, keep))
        return logits


def text(
    *,
    classes: int,
    shape: Sequence[int],
    vocabulary: int,
    width: int = 64,
    layers: int = 0,
    heads: int = 4,
) -> TextEncoder:
    """Embedded tokens, `layers` layers of attention, their mean, one linear layer.

    Args:
        classes: width of the output.
        shape: (length,), how many token ids a text has; id 0 pads.
        vocabulary: number of token ids.
        width: of the embedding, a multiple of `heads`.
        layers: of attention; 0 is the mean of the embeddings (Joulin et al. 2016,
            arXiv:1607.01759).
        heads: of each attention.

    Returns:
        int64 (B, length) to (B, classes). Taps: `embedding`, `layers.0`, ..., `pool`.

    Raises:
        InputError: samples that are no rows of tokens, or a width that the heads do not divide.
    """
    if len(shape) != 1:
        raise InputError(
            f"limbeck:text takes token ids of shape (length,), the samples have {tuple(shape)}"
        )
    if layers and width % heads:
        raise InputError(f"the width of limbeck:text must be a multiple of {heads}, got {width}")
    return TextEncoder(classes, shape[0], vocabulary, width, layers, heads)
