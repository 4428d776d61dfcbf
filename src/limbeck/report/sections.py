"""The sections of a report that hold figures: which figures there are, and what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from limbeck.report import evidence, figures, heard, words
from limbeck.report.ink import Ink
from limbeck.report.reading import Array, Run
from limbeck.report.scores import Bins, class_accuracy, reliability

Arms = Mapping[str, Sequence[Run]]
Inks = Mapping[str, Ink]


@dataclass(frozen=True)
class Figure:
    """A drawing as SVG, with its caption."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Section:
    """A heading, the arms that its figures show, and the figures."""

    title: str
    legend: tuple[str, ...]
    figures: tuple[Figure, ...]


def sections(arms: Arms, table: Mapping[str, Any], ink: Inks) -> list[Section]:
    """All sections that the runs have the numbers for."""
    drawn = (
        _training(arms, table, ink),
        _predictions(arms, ink),
        _evidence(arms, ink),
        _heard(arms),
        _costs(table, ink),
    )
    return [section for section in drawn if section.figures]


def _training(arms: Arms, table: Mapping[str, Any], ink: Inks) -> Section:
    metric = table["metric"]
    several = any(len(runs) > 1 for runs in arms.values())
    band = " Mean over the seeds, in a band of one standard deviation." if several else ""
    drawn = []
    for event, key, against, caption in (
        ("train", "loss", "step", f"Training loss.{_no_match(arms)}"),
        ("val", metric, "epoch", f"Validation {words.title(metric)}; the start is cut off."),
    ):
        curves = {arm: figures.curve(runs, event, key, against) for arm, runs in arms.items()}
        curves = {arm: one for arm, one in curves.items() if len(one.x)}
        if curves:
            drawn.append(Figure(figures.learning_curves(curves, ink, key), caption + band))
    return Section("Training", tuple(arms), tuple(drawn))


def _no_match(arms: Arms) -> str:
    return " Arms with different losses do not compare." if len(arms) > 1 else ""


def _predictions(arms: Arms, ink: Inks) -> Section:
    """Calibration, and accuracy class by class."""
    known = {arm: [run for run in runs if run.correct.size] for arm, runs in arms.items()}
    known = {arm: runs for arm, runs in known.items() if runs}
    if not known:
        return Section("Predictions", (), ())
    bins, samples = _calibration(known)
    caption = (
        "Reliability: a calibrated model lies on the diagonal, below it a model is too sure. "
        "Larger markers hold more samples; bins with fewer than ten are left out."
    )
    drawn = [
        Figure(figures.reliability_diagram(bins, ink, samples), caption),
        *_classes(known, ink),
    ]
    return Section("Predictions", tuple(bins), tuple(drawn))


def _calibration(arms: Arms) -> tuple[dict[str, Bins], int]:
    """Bins by arm, over the pooled predictions of its seeds, and the samples of one split."""
    bins = {arm: _bins([run.logits() for run in runs], runs) for arm, runs in arms.items()}
    taught = [run for runs in arms.values() for run in runs if run.logits("teacher") is not None]
    if taught:
        bins["teacher"] = _bins([taught[0].logits("teacher")], taught[:1])
    return bins, len(next(iter(arms.values()))[0].correct)


def _bins(logits: Sequence[Array | None], runs: Sequence[Run]) -> Bins:
    pooled = np.concatenate([one for one in logits if one is not None])
    return reliability(
        pooled, np.concatenate([run.labels for run in runs if run.labels is not None])
    )


def _classes(arms: Arms, ink: Inks) -> list[Figure]:
    """Change of the accuracy class by class: against no teacher, else against the teacher."""
    first = next(iter(arms.values()))[0]
    classes = first.card["classes"]
    if not classes:
        return []
    students = {arm: _by_class(runs, len(classes)) for arm, runs in arms.items()}
    teacher = first.logits("teacher")
    base, name = students.pop("none", None), "no teacher"
    if base is None and teacher is not None and first.labels is not None:
        base, name = class_accuracy(teacher, first.labels, len(classes)), "the teacher"
    if not students or base is None:
        values = students or {"none": _by_class(arms["none"], len(classes))}
        label, caption = "accuracy %", "Accuracy class by class."
    else:
        values = {arm: accuracy - base for arm, accuracy in students.items()}
        label = f"change against {name}, points"
        caption = f"Accuracy class by class: gain (right) or loss (left) against {name}."
    if len(classes) > figures.CLASSES:
        half = figures.CLASSES // 2
        caption += f" The {half} classes with the largest values and the {half} with the smallest."
    return [Figure(figures.class_figure(classes, values, ink, label), caption)]


def _by_class(runs: Sequence[Run], classes: int) -> Array:
    """Accuracy of each class, mean over the runs."""
    found = [
        class_accuracy(logits, labels, classes)
        for run in runs
        if (logits := run.logits()) is not None and (labels := run.labels) is not None
    ]
    return np.asarray(np.mean(found, axis=0))


def _evidence(arms: Arms, ink: Inks) -> Section:
    """What methods found out about their teacher, and what they made of it."""
    named = evidence.last_events(arms, "samples")
    words_on = [evidence.named_samples(one) for events in named.values() for one in events.values()]
    drawn, shown = [], []
    for kind in ("curve", "histogram"):
        for name, events in evidence.last_events(arms, kind).items():
            told = " ".join(
                [evidence.caption(name, events), *(words_on if kind != "curve" else ())]
            )
            drawn.append(Figure(evidence.drawing(kind, name, events, ink), told))
            shown += [arm for arm in events if arm not in shown]
    return Section("What the method saw of its teacher", tuple(shown), tuple(drawn))


def _heard(arms: Arms) -> Section:
    """Several teachers over the training, in the first seed of every arm that weighs them."""
    drawn = [Figure(*one) for arm, runs in arms.items() for one in heard.drawings(arm, runs[0])]
    return Section("How the teachers were heard", (), tuple(drawn))


def _costs(table: Mapping[str, Any], ink: Inks) -> Section:
    """The metric against latency and against size."""
    key, metric = f"{table['split']}.{table['metric']}", table["metric"]
    rows = [(arm["arm"], arm, arm["metrics"][key]) for arm in table["arms"]]
    teacher = table["teacher"]
    if teacher and key in teacher["metrics"]:
        rows.append(("teacher", teacher, {"mean": teacher["metrics"][key], "ci95": None}))
    drawn = []
    for label, cost, caption in (
        ("latency at batch 1, ms", _latency, "Further left is faster, further up is better."),
        ("parameters", _parameters, "Further left is smaller."),
    ):
        costs = [(name, cost(row), found) for name, row, found in rows]
        points = {
            name: figures.Point(value, found["mean"], found["ci95"])
            for name, value, found in costs
            if value
        }
        if len(points) > 1:
            drawn.append(Figure(figures.trade_off(points, ink, label, metric), caption))
    title = words.sentence(f"{words.name(metric)} against cost")
    return Section(title, tuple(name for name, _, _ in rows), tuple(drawn))


def _latency(row: Mapping[str, Any]) -> float | None:
    return (row["latency_ms"] or {}).get("1")


def _parameters(row: Mapping[str, Any]) -> float | None:
    return row["parameters"]  # type: ignore[no-any-return]
