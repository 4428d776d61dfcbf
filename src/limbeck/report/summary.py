"""The first lines of a report: what came out, in one sentence and a few large numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from limbeck.report import words
from limbeck.report.statistics import sign


@dataclass(frozen=True)
class Tile:
    """One large number and what it is."""

    value: str
    label: str


def best_arm(table: Mapping[str, Any]) -> str:
    """The arm with the best mean; the no-teacher arm only where it is alone."""
    candidates = [arm for arm in table["arms"] if arm["arm"] != "none"] or table["arms"]
    way = sign(table["metric"])
    return str(max(candidates, key=lambda arm: way * _metric(arm, table)["mean"])["arm"])


def run_verdict(table: Mapping[str, Any]) -> str:
    """What a single run came to, in one sentence."""
    arm, metric, teacher = table["arms"][0], table["metric"], table["teacher"]
    value = words.reached(_metric(arm, table)["mean"], metric)
    text = f"The student reaches {value} on the {words.place(table['split'])} split"
    text += f" with {words.count(arm['parameters'])} parameters"
    if not teacher:
        return text
    theirs = teacher["metrics"].get(f"{table['split']}.{metric}")
    if theirs is not None:
        text += f"; its teacher reaches {words.reached(theirs, metric)}"
        text += f" with {words.count(teacher['parameters'])}"
    agreement = arm["metrics"].get(f"{table['split']}.agreement")
    if agreement:
        text += f"; they agree on {words.number(agreement['mean'], 'agreement')} % of the samples"
    return text


def tiles(table: Mapping[str, Any]) -> list[Tile]:
    """The best arm's metric, its gain over no teacher, the teacher, size and speed."""
    metric, teacher, name = table["metric"], table["teacher"], best_arm(table)
    arm = next(arm for arm in table["arms"] if arm["arm"] == name)
    found = _metric(arm, table)
    label = f"{words.name(metric)} of {name}"
    if found["ci95"] is not None:
        label += f", ± {words.number(found['ci95'], metric)}"
    shown = [Tile(words.percent(found["mean"], metric), label)]
    if versus := arm["versus"].get("none"):
        label = f"{'points ' if metric in words.PERCENT else ''}against no teacher"
        label += f", Holm {words.p_phrase(versus['p_holm'])}"
        shown.append(Tile(words.signed(versus["difference"], metric), label))
    if not teacher:
        return [*shown, Tile(words.count(arm["parameters"]), "parameters")]
    theirs = teacher["metrics"].get(f"{table['split']}.{metric}")
    if theirs is not None:
        label = f"{words.name(metric)} of the teacher"
        shown.append(Tile(words.percent(theirs, metric), label))
    return shown + _costs(arm, teacher)


def _costs(arm: Mapping[str, Any], teacher: Mapping[str, Any]) -> list[Tile]:
    sizes = words.count(arm["parameters"]), words.count(teacher["parameters"])
    label = f"fewer parameters: {sizes[0]} against {sizes[1]}"
    shown = [Tile(words.ratio(teacher["parameters"], arm["parameters"]), label)]
    theirs, ours = (teacher["latency_ms"] or {}).get("1"), arm["latency_ms"].get("1")
    if theirs and ours:
        times = words.milliseconds(ours), words.milliseconds(theirs)
        label = f"faster at batch 1: {times[0]} ms against {times[1]} ms"
        shown.append(Tile(words.ratio(theirs, ours), label))
    return shown


def _metric(arm: Mapping[str, Any], table: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = arm["metrics"][f"{table['split']}.{table['metric']}"]
    return found
