"""Ratios of things that are timed in turns, so that what else the machine does hits them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def seconds(
    loops: Mapping[str, Callable[[], object]], rounds: int, *, warm: int = 1
) -> dict[str, list[float]]:
    """Processor time of each loop in each round; the order alternates."""
    times: dict[str, list[float]] = {name: [] for name in loops}
    for round_ in range(rounds + warm):
        for name in sorted(loops, reverse=bool(round_ % 2)):
            start = time.process_time()
            loops[name]()
            if round_ >= warm:
                times[name].append(time.process_time() - start)
    return times


def over(times: Mapping[str, list[float]], name: str, base: str) -> float:
    """Median over the rounds of one loop's time over another's."""
    pairs = zip(times[name], times[base], strict=True)
    return statistics.median(ours / theirs for ours, theirs in pairs)
