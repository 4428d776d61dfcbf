"""How wide a student must be: the ramp of its metric over the nodes that are left, and the knee."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from limbeck.errors import InputError
from limbeck.students.spectral import masked, node_scores


@dataclass(frozen=True)
class Width:
    """What `find_width` found.

    Attributes:
        nodes: k*, the fewest nodes that do as well as all of them.
        total: nodes before.
        ramp: the metric by how many of the best nodes are alive.
        jump: (m(k*−1) − m(all)) / (m(k*) − m(all)): how sharp the knee is.
        alive: the k* nodes, boolean, by layer; for `export_dense`.
    """

    nodes: int
    total: int
    ramp: Mapping[int, float]
    jump: float
    alive: Mapping[str, Tensor]

    @property
    def table(self) -> list[dict[str, str | int]]:
        """A row for each layer: its path, its nodes, and how many of them stay."""
        return [
            {"layer": path, "nodes": len(kept), "alive": int(kept.sum())}
            for path, kept in self.alive.items()
        ]


def find_width(
    model: nn.Module,
    metric: Callable[[nn.Module], float],
    *,
    tolerance: float = 0.01,
    counts: Sequence[int] = (),
) -> Width:
    """The knee k* = min {k : m(k') ≤ m(all) + tolerance (m(0) − m(all)) for all k' ≥ k}.

    m(k) is the metric where only the k nodes of the highest relative scores are alive, counted
    over all layers, one in each at least. It is sampled at powers of two, then bisected.

    Args:
        model: from `spectralize`, trained with `SpectralPenalty`.
        metric: of the model on held-out samples, lower is better, such as the error.
        tolerance: share of the range of the metric that may be lost.
        counts: further numbers of nodes to measure.

    Raises:
        InputError: the metric is no better with all nodes than with none, or not finite.
    """
    order = _ranking(model)
    total = len(order)

    def measure(count: int) -> float:
        with masked(model, _best(order, count)), torch.no_grad():
            return float(metric(model))

    ramp = {0: measure(0), total: measure(total)}
    limit = ramp[total] + tolerance * (ramp[0] - ramp[total])
    if not (math.isfinite(limit) and ramp[0] > ramp[total]):
        raise InputError(
            f"the metric is {ramp[total]:g} with all nodes and {ramp[0]:g} with none: it must be "
            f"finite and lower is better; a student that has collapsed needs a smaller mu"
        )
    least = len({path for path, _ in order})
    for count in sorted({least, *counts, *(2**power for power in range(total.bit_length()))}):
        if least <= count < total:
            ramp[count] = measure(count)
    nodes = _bisect(ramp, limit, least, measure)
    ramp = dict(sorted(ramp.items()))
    return Width(nodes, total, ramp, _jump(ramp, nodes, total), _best(order, nodes))


def keep_best(model: nn.Module, count: int) -> dict[str, Tensor]:
    """The `count` nodes of the highest relative scores, one in each layer at least, by layer."""
    order = _ranking(model)
    return _best(order, max(count, len({path for path, _ in order})))


def _ranking(model: nn.Module) -> list[tuple[str, int]]:
    """All nodes, the best of each layer first, then by falling relative score."""
    rows = []
    for path, scores in node_scores(model).items():
        relative = scores / scores.max().clamp(min=torch.finfo(scores.dtype).tiny)
        best = int(relative.argmax())
        rows += [
            (math.inf if node == best else float(relative[node]), path, node)
            for node in range(len(relative))
        ]
    rows.sort(key=lambda row: -row[0])
    return [(path, node) for _, path, node in rows]


def _best(order: list[tuple[str, int]], count: int) -> dict[str, Tensor]:
    widths: dict[str, int] = {}
    for path, _ in order:
        widths[path] = widths.get(path, 0) + 1
    alive = {path: torch.zeros(width, dtype=torch.bool) for path, width in widths.items()}
    for path, node in order[:count]:
        alive[path][node] = True
    return alive


def _bisect(
    ramp: dict[int, float], limit: float, least: int, measure: Callable[[int], float]
) -> int:
    """The knee; what is measured on the way joins the ramp."""
    bad = max((count for count, value in ramp.items() if value > limit), default=0)
    good = min(count for count in ramp if count > bad)
    bad = max(bad, least - 1)
    while good - bad > 1:
        middle = (good + bad) // 2
        ramp[middle] = measure(middle)
        good, bad = (middle, bad) if ramp[middle] <= limit else (good, middle)
    if good > 1 and good - 1 not in ramp and good > least:
        ramp[good - 1] = measure(good - 1)
    return good


def _jump(ramp: Mapping[int, float], nodes: int, total: int) -> float:
    """At most a thousand: below a thousandth of the metric's range nothing is lost."""
    below, lost = ramp.get(nodes - 1, ramp[0]) - ramp[total], ramp[nodes] - ramp[total]
    return below / max(lost, 1e-3 * (ramp[0] - ramp[total]))
