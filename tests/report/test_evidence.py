"""Curves, histograms and samples that a method left in its metrics log are drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from limbeck.report.evidence import caption, drawing, last_events, named_samples, pictures
from limbeck.report.ink import inks
from limbeck.report.reading import Run

AXES = {"xlabel": "margin", "ylabel": "accuracy"}


def run(*events: dict[str, object]) -> Run:
    return Run(Path(), {}, tuple(events))


def test_the_last_of_a_name_is_shown_arm_by_arm() -> None:
    first = {"event": "curve", "name": "a", "x": [0], "y": [1], "step": 0}
    last = first | {"y": [2], "step": 5}
    arms = {"slam": [run(first, last), run()], "kd": [run()], "other": [run(first)]}
    found = last_events(arms, "curve")
    assert found == {"a": {"slam": last, "other": first}}
    assert last_events(arms, "histogram") == {}
    assert caption("a", found["a"]) == "a, after 5 steps."
    assert caption("a", {"other": first}) == "a."


def test_drawings_name_their_axes() -> None:
    ink = inks(["slam"])
    curve = {"slam": {"x": [0.0, 1.0], "y": [0.5, 0.9], **AXES}}
    assert "margin" in drawing("curve", "a", curve, ink)
    histogram = {"slam": {"x": [0.0, 1.0, 2.0], "y": [3, 4], **AXES}}
    assert 'aria-label="weights"' in drawing("histogram", "weights", histogram, ink)


def test_samples_are_named() -> None:
    event = {"name": "Least trusted", "index": list(range(20)), "value": [0.125] * 20}
    assert named_samples(event).startswith("Least trusted: 0 (0.12), 1 (0.12)")
    assert "7 (0.12)." in named_samples(event)


def test_named_samples_of_the_pool_are_pictured() -> None:
    event = {"event": "samples", "name": "Least trusted", "part": "pool"}
    arm = run(event | {"index": [7, 3], "value": [0.1, 0.2]})
    asked: list[list[int]] = []

    def images(ids: list[int]) -> np.ndarray:
        asked.append(ids)
        return np.zeros((len(ids), 1, 4, 4))

    ((title, shown),) = pictures(arm, images)
    assert title == "Least trusted"
    assert asked == [[7, 3]]
    assert [(one.index, one.value) for one in shown] == [(7, 0.1), (3, 0.2)]
    assert shown[0].image.startswith("data:image/png")
    assert pictures(arm, None) == []
