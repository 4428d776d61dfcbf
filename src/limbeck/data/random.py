"""Randomness without state: every draw is a pure function of named integers.

Nothing here touches torch's global generators, so a resumed run, another number of
workers or another device draws the same numbers.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Constants of splitmix64 (Steele, Lea and Flood 2014): increment, shift and factor of each round.
GOLDEN = 0x9E3779B97F4A7C15
_ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


def derive(seed: int, *names: str | int) -> int:
    """A seed in [0, 2**63) for the stream called `names` under `seed`."""
    text = "/".join([str(int(seed)), *map(str, names)]).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def generator(seed: int, *names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator on `device` for the stream called `names` under `seed`."""
    return torch.Generator(device=device).manual_seed(derive(seed, *names))


def uniforms(index: Tensor, count: int, *, seed: int) -> Tensor:
    """`count` uniform numbers for every sample, a pure function of (sample id, seed).

    Args:
        index: sample ids, integer tensor of shape (N,).
        count: how many numbers a sample gets.
        seed: the stream, see `derive`.

    Returns:
        float32 tensor of shape (N, count) in [0, 1), the same on every device.
    """
    if index.device.type == "cpu":
        return torch.from_numpy(_uniforms_numpy(index.numpy(), count, seed))
    return _uniforms_torch(index, count, seed)


def _uniforms_numpy(index: NDArray[np.integer], count: int, seed: int) -> NDArray[np.float32]:
    """The CPU's `uniforms`: a small batch costs a third of what torch's operators would."""
    columns = np.arange(count, dtype=np.uint64)
    state: NDArray[np.uint64] = index.astype(np.uint64)[:, None] * np.uint64(count) + columns
    state *= np.uint64(GOLDEN)
    state += np.uint64(seed)
    mix(state)
    state >>= np.uint64(40)
    return state.astype(np.float32) * np.float32(2.0**-24)


def mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble 64-bit integers in place, one to one: the finaliser of splitmix64.

    Its closing shift is left out: it would only touch the lower half of the bits.
    """
    for shift, factor in _ROUNDS:
        state ^= state >> np.uint64(shift)
        state *= np.uint64(factor)
    return state


def _uniforms_torch(index: Tensor, count: int, seed: int) -> Tensor:
    """Any device's `uniforms`: the same bits from signed integers, which is all torch shifts."""
    columns = torch.arange(count, device=index.device)
    state = (index.long()[:, None] * count + columns) * _signed(GOLDEN) + seed
    for shift, factor in _ROUNDS:
        state = (state ^ _shift_right(state, shift)) * _signed(factor)
    return _shift_right(state, 40).float() * 2.0**-24


def _signed(value: int) -> int:
    """The two's complement reading of an unsigned 64-bit integer."""
    return value - (1 << 64) if value >> 63 else value


def _shift_right(value: Tensor, bits: int) -> Tensor:
    """Logical right shift of 64-bit integers."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)
