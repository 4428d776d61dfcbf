"""The figures of a report: plain functions from runs and rows to inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from limbeck.report import words
from limbeck.report.ink import MUTED, TEXT, Ink, panel, svg
from limbeck.report.reading import Array, Run
from limbeck.report.scores import Bins
from limbeck.report.statistics import sign

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

_POINTS = 150  # drawn of one curve at most
CLASSES = 20  # shown of a class figure at most
_FEWEST = 10  # samples in a confidence bin that is shown


@dataclass(frozen=True)
class Curve:
    """Mean over seeds and standard deviation, against steps or epochs."""

    x: Array
    mean: Array
    deviation: Array


def curve(runs: Sequence[Run], event: str, key: str, against: str) -> Curve:
    """What the metrics logs of an arm say of `key`, thinned to what an eye can see."""
    found: dict[int, list[float]] = {}
    for run in runs:
        for line in run.events:
            if line.get("event") == event and np.isfinite(line.get(key, np.nan)):
                found.setdefault(line[against], []).append(line[key])
    x = np.asarray(sorted(found))
    x = x[np.unique(np.linspace(0, len(x) - 1, min(len(x), _POINTS)).round().astype(int))]
    values = [np.asarray(found[place]) for place in x.tolist()]
    deviation = [value.std(ddof=1) if len(value) > 1 else 0.0 for value in values]
    return Curve(x, np.asarray([value.mean() for value in values]), np.asarray(deviation))


def learning_curves(curves: Mapping[str, Curve], ink: Mapping[str, Ink], metric: str) -> str:
    """A metric (or `loss`) by arm: mean with a band of one standard deviation over the seeds."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = panel()
    unit = 100.0 if metric in words.PERCENT else 1.0
    for arm, one in curves.items():
        mean, band = unit * one.mean, unit * one.deviation
        axes.plot(one.x, mean, color=ink[arm].color, ls=ink[arm].dash)
        if band.any():
            axes.fill_between(
                one.x, mean - band, mean + band, color=ink[arm].color, alpha=0.18, lw=0
            )
    values = unit * np.concatenate([one.mean for one in curves.values()])
    if metric == "loss":
        axes.set(xlabel="optimizer step", ylabel="training loss")
        if values.min() > 0 and values.max() > 20 * values.min():
            axes.set_yscale("log")
            _plain_log(axes.yaxis, values.min(), values.max())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="epoch", ylabel=f"validation {words.title(metric)}")
        _cut(axes, values, sign(metric))
    return svg(figure, f"{metric} during training, by arm")


def _cut(axes: Axes, values: Array, way: int) -> None:
    """Leave the first, worst part of the training off the axis, so that arms can be told apart."""
    worst, best = way * np.quantile(way * values, 0.15), way * (way * values).max()
    low, high = sorted((float(worst), float(best)))
    if high > low:
        room = 0.08 * (high - low)
        axes.set_ylim(low - room, high + room)


def reliability_diagram(bins: Mapping[str, Bins], ink: Mapping[str, Ink], samples: int) -> str:
    """Accuracy against confidence; a larger marker stands for more samples."""
    figure, axes = panel()
    axes.plot([0, 100], [0, 100], color=MUTED, lw=1, ls=(0, (2, 2)))
    for arm, one in bins.items():
        shown = one.share * samples >= _FEWEST
        x, y = 100 * one.confidence[shown], 100 * one.accuracy[shown]
        look = ink[arm]
        axes.plot(x, y, color=look.color, ls=look.dash, lw=1.3)
        sizes = 12 + 90 * one.share[shown]
        axes.scatter(x, y, sizes, color=look.color, marker=look.marker, lw=0, zorder=3)
    axes.set(xlabel="confidence %", ylabel="accuracy %", xlim=(0, 103), ylim=(0, 103))
    return svg(figure, "reliability diagram: accuracy against confidence")


def class_figure(
    classes: Sequence[str], values: Mapping[str, Array], ink: Mapping[str, Ink], xlabel: str
) -> str:
    """A dot a class and arm, from values in [-1, 1]; of many classes those with extreme values."""
    shown = _extremes(np.nanmean(np.stack(list(values.values())), 0))
    figure, axes = panel(4.5, max(1.6, 0.75 + 0.22 * len(shown)))
    places = np.arange(len(shown))[::-1]
    spread = np.linspace(0.22, -0.22, len(values)) if len(values) > 1 else [0.0]
    for shift, (arm, value) in zip(spread, values.items(), strict=True):
        look = ink[arm]
        axes.scatter(
            100 * value[shown], places + shift, 26, color=look.color, marker=look.marker, lw=0
        )
    if "change" in xlabel:
        axes.axvline(0, color=TEXT, lw=0.9)
    axes.set_yticks(places, [_shortened(str(classes[row])) for row in shown])
    axes.set(xlabel=xlabel, ylabel="class", ylim=(-0.6, len(shown) - 0.4))
    return svg(figure, f"{xlabel}, by class")


def _extremes(values: Array) -> Array:
    """Rows in order; of more than can be shown, those with the lowest and highest values."""
    known = np.flatnonzero(np.isfinite(values))
    if len(known) <= CLASSES:
        return known
    ranked = known[np.argsort(values[known], kind="stable")]
    return np.concatenate([ranked[::-1][: CLASSES // 2], ranked[: CLASSES // 2][::-1]])


def _shortened(name: str) -> str:
    return name if len(name) <= 18 else f"{name[:17]}…"


@dataclass(frozen=True)
class Point:
    """An arm's cost, its metric, and the half-width of the metric's interval."""

    cost: float
    value: float
    half: float | None


def trade_off(points: Mapping[str, Point], ink: Mapping[str, Ink], cost: str, metric: str) -> str:
    """The metric against a cost (its label with its unit) on a logarithmic axis, by arm."""
    figure, axes = panel()
    for arm, point in points.items():
        value, look = words.scaled(point.value, metric), ink[arm]
        if point.half is not None:
            half = words.scaled(point.half, metric)
            axes.errorbar(point.cost, value, half, color=look.color, lw=1.3, capsize=2.5)
        size = 110 if look.marker == "*" else 45
        axes.scatter([point.cost], [value], size, color=look.color, marker=look.marker, lw=0)
    costs = [point.cost for point in points.values()]
    middle = np.sqrt(min(costs) * max(costs))
    reach = max(1.35 * np.sqrt(max(costs) / min(costs)), 10**0.5)  # one decade at least
    axes.set_xscale("log")
    axes.set_xlim(middle / reach, middle * reach)
    _plain_log(axes.xaxis, min(costs), max(costs))
    axes.set(xlabel=cost, ylabel=words.title(metric))
    return svg(figure, f"{metric} against {cost}, by arm")


def _plain_log(axis: Axis, low: float, high: float) -> None:
    """Ticks of a logarithmic axis as plain numbers: at 1, 2 and 5, or at decades only."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0,) if high > 300 * low else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axis.set_minor_formatter(NullFormatter())
