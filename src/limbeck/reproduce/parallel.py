"""Trainings side by side: small networks use one core each."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


def side_by_side(
    function: Callable[..., T],
    calls: Sequence[tuple[Any, ...]],
    *,
    workers: int,
    report: Callable[[int, T], None],
) -> list[T]:
    """`function(*call)` for every call, in order, in up to `workers` processes of one thread each.

    Args:
        function: of a module's top level.
        calls: its arguments, plain data.
        workers: processes; 1 stays in this one.
        report: told of each result with its position, in order.
    """
    results: list[T] = []
    if workers == 1:
        one_thread()
        for place, call in enumerate(calls):
            results.append(function(*call))
            report(place, results[-1])
        return results
    # A fork would take over the threads of torch in an unknown state.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=one_thread) as pool:
        for place, future in enumerate([pool.submit(function, *call) for call in calls]):
            results.append(future.result())
            report(place, results[-1])
    return results


def one_thread() -> None:
    """Networks as small as these lose more by sharing their work than they win."""
    import torch

    torch.set_num_threads(1)
