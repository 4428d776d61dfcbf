"""Run and comparison folders as reports see them: files in, plain numbers out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limbeck.errors import InputError
from limbeck.recipe import yaml
from limbeck.recipe.folder import read_json

Array = NDArray[Any]


@dataclass(frozen=True)
class Run:
    """One finished run, read from its folder.

    Attributes:
        folder: where it lies.
        card: its `card.json`.
        events: the lines of its `metrics.jsonl`.
    """

    folder: Path
    card: Mapping[str, Any]
    events: tuple[Mapping[str, Any], ...]

    @property
    def seed(self) -> int:
        """The seed that it was trained with."""
        return int(self.card["seed"])

    @property
    def teachers(self) -> list[Mapping[str, Any]]:
        """Its teachers as the card has them, empty where it had none."""
        return list(self.card.get("teachers") or [])

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The final metrics, by keys such as `test.accuracy`."""
        return _final(self.events) or {}

    @cached_property
    def split(self) -> str:
        """The split that it is judged on: `test`, or `val` where the user has no test split."""
        return "test" if any(key.startswith("test.") for key in self.metrics) else "val"

    @cached_property
    def predictions(self) -> dict[str, Array]:
        """The arrays of `predictions.safetensors`; empty where the run stored none."""
        path = self.folder / "predictions.safetensors"
        return _arrays(path) if path.exists() else {}

    def logits(self, who: str = "student") -> Array | None:
        """Logits (N, C) on the judged split, of the `student` or the `teacher`."""
        prefix = "" if who == "student" else f"{who}."
        return self.predictions.get(f"{prefix}{self.split}.logits")

    @property
    def labels(self) -> Array | None:
        """Labels (N,) of the judged split."""
        return self.predictions.get(f"{self.split}.y")

    @property
    def correct(self) -> Array:
        """Which samples of the judged split the student got right, bool (N,); empty if unknown."""
        logits, labels = self.logits(), self.labels
        if logits is None or labels is None:
            return np.zeros(0, dtype=bool)
        return np.asarray(logits.argmax(-1) == labels)


def _final(events: tuple[Mapping[str, Any], ...]) -> dict[str, float] | None:
    for event in reversed(events):
        if event.get("event") == "final":
            return dict(event["metrics"])
    return None


def _arrays(path: Path) -> dict[str, Array]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays: dict[str, Array] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot read the predictions {path}: {error}") from None
    return arrays


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        InputError: it is missing or not text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise InputError(f"cannot read {path}: {reason}") from None


def _events(path: Path) -> tuple[Mapping[str, Any], ...]:
    """The lines of a metrics log; a last line that was cut short by a crash is left out."""
    lines = read_text(path).splitlines()
    events = []
    for position, line in enumerate(lines):
        try:
            events.append(json.loads(line))
        except ValueError:
            if position + 1 < len(lines):
                raise InputError(f"line {position + 1} of {path} is not JSON") from None
    return tuple(events)


def finished_run(folder: Path) -> Run | None:
    """The run in a folder, or None where it has not come to its end and left a card."""
    log, card = folder / "metrics.jsonl", folder / "card.json"
    if not (log.exists() and card.exists()):
        return None
    events = _events(log)
    return None if _final(events) is None else Run(folder, read_json(card), events)


def read_run(folder: Path) -> Run:
    """A finished run.

    Raises:
        InputError: the folder is no run, or the run has not come to its end.
    """
    if not (folder / "metrics.jsonl").exists():
        raise InputError(f"{folder} is no run folder: it has no metrics.jsonl (nor arms/)")
    run = finished_run(folder)
    if run is None:
        raise InputError(
            f"the run {folder} has not come to its end; `limbeck distill --resume {folder}` ends it"
        )
    return run


def read_arms(folder: Path) -> dict[str, list[Run]]:
    """The finished runs of a comparison by arm: `none` first, then as in the recipe.

    Raises:
        InputError: the folder is no comparison, or no run in it has come to its end.
    """
    arms: dict[str, list[Run]] = {}
    for path in (folder / "arms").glob("*/seed-*"):
        if run := finished_run(path):
            arms.setdefault(path.parent.name, []).append(run)
    if not arms:
        raise InputError(f"{folder} holds no finished run under arms/ARM/seed-N")
    order = ["none", *_recipe_arms(folder)]
    rank = {name: position for position, name in reversed(list(enumerate(order)))}
    names = sorted(arms, key=lambda name: (rank.get(name, len(order)), name))
    return {name: sorted(arms[name], key=lambda run: run.seed) for name in names}


def read_recipe(folder: Path) -> dict[str, Any]:
    """The resolved recipe of a folder; empty where there is none."""
    path = folder / "recipe.yaml"
    return yaml.read(path) if path.exists() else {}


def _recipe_arms(folder: Path) -> list[str]:
    return list((read_recipe(folder).get("compare") or {}).get("arms") or {})
