"""What a method left for the report: curves, histograms, and the samples that it names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from limbeck.report.disagreement import Images, data_uri
from limbeck.report.ink import Ink, panel, svg
from limbeck.report.reading import Run

Events = Mapping[str, Mapping[str, Any]]
"""The last event of a name, by arm."""

_NAMED = 8


def last_events(arms: Mapping[str, Sequence[Run]], kind: str) -> dict[str, Events]:
    """By name, what the first seed of every arm left last."""
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for arm, runs in arms.items():
        for event in runs[0].events:
            if event.get("event") == kind:
                found.setdefault(event["name"], {})[arm] = event
    return dict(found)


def drawing(kind: str, name: str, events: Events, ink: Mapping[str, Ink]) -> str:
    """A curve, or the outline of a histogram, an arm."""
    figure, axes = panel()
    for arm, event in events.items():
        look = ink[arm]
        if kind == "curve":
            axes.plot(event["x"], event["y"], color=look.color, ls=look.dash)
        else:
            axes.stairs(event["y"], event["x"], color=look.color, ls=look.dash, lw=1.8)
    first = next(iter(events.values()))
    axes.set(xlabel=first["xlabel"], ylabel=first["ylabel"])
    if kind == "histogram":
        axes.set_ylim(0)
    return svg(figure, name)


def caption(name: str, events: Events) -> str:
    """The name, and after how many steps that was where it changes during the training."""
    steps = int(np.max([event["step"] for event in events.values()]))
    return f"{name}, after {steps:,} steps." if steps else f"{name}."


@dataclass(frozen=True)
class Picture:
    """One sample that a method names: its id, what it says of it, and its image as a data URI."""

    index: int
    value: float
    image: str


def pictures(run: Run, images: Images | None) -> list[tuple[str, list[Picture]]]:
    """The samples of the pool that a run named last, under what it said; none without images.

    Args:
        run: whose log is read.
        images: gives pool samples by id.
    """
    found = []
    for name, events in last_events({"": [run]}, "samples").items():
        event = events[""]
        if images is not None and event["part"] == "pool" and event["index"]:
            index, values = event["index"][:_NAMED], event["value"]
            shown = zip(index, values, images(index), strict=False)
            found.append((name, [Picture(i, value, data_uri(x)) for i, value, x in shown]))
    return found


def named_samples(event: Mapping[str, Any]) -> str:
    """The first of the samples that an event names, in one sentence."""
    pairs = list(zip(event["index"], event["value"], strict=True))[:_NAMED]
    return f"{event['name']}: " + ", ".join(f"{i} ({value:.2f})" for i, value in pairs) + "."
