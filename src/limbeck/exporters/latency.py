"""How long a model takes to answer a batch, in milliseconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.data.random import generator

BATCHES = (1, 256)
_BUDGET = 0.2  # seconds of repeats for one batch size; a slower call is timed once
_MOST = 100  # repeats


def latency(
    model: nn.Module,
    sample_shape: Sequence[int],
    batches: Sequence[int] = BATCHES,
    dtype: torch.dtype = torch.float32,
) -> dict[str, float]:
    """Median time of a forward pass in inference mode, where the model lies.

    Args:
        model: any module; its mode is restored afterwards.
        sample_shape: shape of one sample, without the batch axis.
        batches: batch sizes.
        dtype: of the samples; integers are all zeros, floats uniform in [0, 1).

    Returns:
        Milliseconds by batch size: `{"1": 0.21, "256": 3.4}`.
    """
    first = next(model.parameters(), None)
    device = torch.device("cpu") if first is None else first.device
    sample = _sample(tuple(sample_shape), dtype).to(device)
    training = model.training
    model.eval()
    try:
        return latency_of(model, sample, batches)
    finally:
        model.train(training)


def latency_of(
    answer: Callable[[Tensor], Any], sample: Tensor, batches: Sequence[int] = BATCHES
) -> dict[str, float]:
    """Like `latency`, of anything that answers a batch.

    Args:
        answer: takes a batch of shape (B, ...).
        sample: one sample, shape (1, ...), which fills the batches.
        batches: batch sizes.
    """
    with torch.inference_mode():
        filled = {size: sample.expand(size, *sample.shape[1:]).contiguous() for size in batches}
        return {str(size): _median_ms(answer, batch) for size, batch in filled.items()}


def _sample(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    if dtype.is_floating_point:
        return torch.rand((1, *shape), generator=generator(0, "latency")).to(dtype)
    return torch.zeros((1, *shape), dtype=dtype)


def _median_ms(answer: Callable[[Tensor], Any], batch: Tensor) -> float:
    """The first call warms up and is not counted."""
    _timed(answer, batch)
    times = [_timed(answer, batch)]
    while len(times) < _MOST and sum(times) < _BUDGET:
        times.append(_timed(answer, batch))
    return round(1000 * median(times), 4)


def _timed(answer: Callable[[Tensor], Any], batch: Tensor) -> float:
    start = time.perf_counter()
    answer(batch)
    if batch.is_cuda:
        torch.cuda.synchronize(batch.device)
    return time.perf_counter() - start
