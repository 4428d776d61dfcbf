"""What data looks like in a few bytes: digests of whole splits, and a hash of every sample."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from limbeck.data.base import Split
from limbeck.data.random import GOLDEN, mix

_ROWS = 4096


def tensors_digest(tensors: Iterable[Tensor | None]) -> str:
    """SHA-256 of tensors in order: shapes, dtypes and bytes.

    Args:
        tensors: on any device; None is told apart from an empty tensor.

    Returns:
        64 hex digits.
    """
    digest = hashlib.sha256()
    for tensor in tensors:
        if tensor is None:
            digest.update(b"none;")
            continue
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)};".encode())
        digest.update(_bytes(tensor).data)
    return digest.hexdigest()


def sample_hashes(split: Split) -> Tensor:
    """A 64-bit hash of the content of every sample, labels and ids left out.

    Equal samples have equal hashes, whatever split they are in; unequal ones collide with
    a probability of about 2**-64. So a row is found again by content, and what two splits
    share is `torch.isin(sample_hashes(train), sample_hashes(test))`.

    Args:
        split: read in order, in batches.

    Returns:
        int64 tensor of shape (N,).
    """
    hashes = torch.empty(len(split), dtype=torch.int64)
    for rows in torch.split(torch.arange(len(split)), _ROWS):
        hashes[rows] = batch_hashes(split.fetch(rows)["x"])
    return hashes


def batch_hashes(x: Tensor) -> Tensor:
    """The same for a batch of samples, shape (B, ...) on any device; int64 of shape (B,)."""
    return torch.from_numpy(_row_hashes(_bytes(x.flatten(1))).view(np.int64))


def _bytes(tensor: Tensor) -> NDArray[np.uint8]:
    """The tensor's memory; its last axis grows by the size of an element."""
    tensor = tensor.detach().cpu().contiguous()
    data: NDArray[np.uint8] = tensor.reshape(tensor.shape or (1,)).view(torch.uint8).numpy()
    return data


def _row_hashes(data: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Hash rows of bytes: the sum of mixed 64-bit words, each with a key of its place."""
    spare = -data.shape[1] % 8
    words = np.ascontiguousarray(np.pad(data, ((0, 0), (0, spare)))).view(np.uint64)
    keys = mix(np.arange(1, words.shape[1] + 1, dtype=np.uint64) * np.uint64(GOLDEN))
    scrambled = mix(words + keys)
    # Low bits of a product never hear of higher ones: fold them down before they are summed.
    scrambled ^= scrambled >> np.uint64(31)
    total: NDArray[np.uint64] = scrambled.sum(axis=1, dtype=np.uint64)
    return mix(total + np.uint64(data.shape[1]))
