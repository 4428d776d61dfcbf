"""Where the numbers of a report come from: recipe, machine, data, every value and every test."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck.report import words
from limbeck.report.reading import Run, read_text


@dataclass(frozen=True)
class Part:
    """One part that unfolds: a table (`headers` and `rows`) or a text."""

    title: str
    text: str = ""
    headers: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


def provenance(
    folder: Path, arms: Mapping[str, Sequence[Run]], table: Mapping[str, Any]
) -> list[Part]:
    """The parts that there is something to say in."""
    first = next(iter(arms.values()))[0].folder
    parts = [_arms(table), _values(table), _tests(table)]
    for title, name in (
        ("Recipe", "recipe.yaml"),
        ("Environment", "environment.json"),
        ("Data", "data.json"),
    ):
        place = next((place / name for place in (folder, first) if (place / name).exists()), None)
        if place is not None:
            parts.append(Part(title, read_text(place).strip()))
    return [part for part in parts if part.text or part.rows]


def _arms(table: Mapping[str, Any]) -> Part:
    rows = [
        (arm["arm"], arm["student"], words.size(arm["bytes"]), json.dumps(arm["method"]))
        for arm in table["arms"]
    ]
    if table["teacher"]:
        rows.append(("teacher", table["teacher"]["model"], words.NOTHING, words.NOTHING))
    return Part("Arms", headers=("arm", "model", "size", "method"), rows=tuple(rows))


def _values(table: Mapping[str, Any]) -> Part:
    """Every value of the metric, an arm a row, a seed a column."""
    key, metric = f"{table['split']}.{table['metric']}", table["metric"]
    seeds = sorted({seed for arm in table["arms"] for seed in arm["seeds"]})
    rows = []
    for arm in table["arms"]:
        found = dict(zip(arm["seeds"], arm["metrics"][key]["values"], strict=True))
        rows.append((arm["arm"], *(words.number(found.get(seed), metric) for seed in seeds)))
    title = f"{words.sentence(words.title(metric))} by seed"
    return Part(title, headers=("arm", *(f"seed {seed}" for seed in seeds)), rows=tuple(rows))


def _tests(table: Mapping[str, Any]) -> Part:
    """Every paired test."""
    headers = ("arm", "against", "difference", "95 % interval", "p", "Holm p", "McNemar p")
    rows = [
        (arm["arm"], rival, *_test(test, table["metric"]))
        for arm in table["arms"]
        for rival, test in arm["versus"].items()
    ]
    return Part("Paired tests", headers=headers, rows=tuple(rows))


def _test(test: Mapping[str, Any], metric: str) -> tuple[str, ...]:
    low, high = words.signed(test["low"], metric), words.signed(test["high"], metric)
    pooled = test["mcnemar_p"]
    return (
        words.signed(test["difference"], metric),
        f"{low} to {high}",
        words.p_value(test["p"]),
        words.p_value(test["p_holm"]),
        words.NOTHING if pooled is None else words.p_value(pooled),
    )
