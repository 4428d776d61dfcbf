"""How a student heard several teachers: their weights, norms and cosines during the training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from limbeck.report.ink import inks, panel, svg
from limbeck.report.reading import Array, Run

_SHOWN = {
    "weights": ("weight", "Weight of each teacher in the loss"),
    "norms": ("norm", "Norm of each teacher's gradient at the student's logits"),
    "cosines": (
        "mean cosine",
        "Each teacher's mean cosine with the others; below 0 it opposes them",
    ),
}
"""Figures of the metrics log: the axis, and the caption."""


def drawings(arm: str, run: Run) -> Iterator[tuple[str, str]]:
    """SVG and caption of everything that a run recorded of its teachers, one line a teacher."""
    lines = [event for event in run.events if "weights" in event.get("figures", {})]
    if not lines:
        return
    names = [f"{place}: {teacher['model']}" for place, teacher in enumerate(run.teachers)]
    steps = np.asarray([line["step"] for line in lines])
    for key, (axis, caption) in _SHOWN.items():
        values = np.asarray([line["figures"][key] for line in lines])
        drawn = _lines(steps, _agreement(values) if key == "cosines" else values, names, axis)
        yield drawn, f"{caption} ({arm})."


def _agreement(cosines: Array) -> Array:
    """(steps, M, M) to each teacher's mean with the others, (steps, M)."""
    count = cosines.shape[-1]
    return np.asarray((cosines.sum(-1) - 1) / (count - 1))


def _lines(steps: Array, values: Array, names: Sequence[str], axis: str) -> str:
    figure, axes = panel()
    for look, one in zip(inks(names).values(), values.T, strict=True):
        axes.plot(steps, one, color=look.color, ls=look.dash, label=look.name)
    axes.set(xlabel="optimizer step", ylabel=axis)
    axes.legend(frameon=False, fontsize=8)
    return svg(figure, f"{axis} of each teacher during training")
