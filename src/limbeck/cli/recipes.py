"""From a recipe file and flags to a checked recipe."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from limbeck.cli.arguments import SHORTCUTS, Overrides
from limbeck.errors import InputError
from limbeck.recipe import yaml
from limbeck.recipe.override import set_path
from limbeck.recipe.spec import Recipe
from limbeck.recipe.validation import explain

_IMPORT_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(?=$|[?@])")
_SOURCES = ("limbeck", "timm", "torchvision", "hf", "store", "sklearn", "search")


def read_recipe(options: argparse.Namespace, overrides: Overrides) -> Recipe:
    """The recipe of a command: its file (or the resumed run's), then the flags.

    Raises:
        InputError: not readable, unknown keys, or code named in the file.
    """
    content: dict[str, Any] = {}
    resumed = getattr(options, "resume", None)
    if resumed:
        content = _resumed(Path(resumed), getattr(options, "recipe", None))
    elif getattr(options, "recipe", None):
        content = yaml.read(Path(options.recipe))
    for path, value in [*overrides, *_shortcuts(options)]:
        _set(content, path, value)
    if resumed:
        content["out"] = resumed
    typed = {str(word) for _, value in overrides for word in _words(value)}
    _refuse_code(content, typed)
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise InputError(explain(error)) from None


def _resumed(run: Path, recipe: str | None) -> dict[str, Any]:
    if recipe:
        raise InputError("give either a recipe or --resume RUN: a run holds its own recipe")
    if not (run / "recipe.yaml").exists():
        raise InputError(f"there is no run to resume in {run}: it holds no recipe.yaml")
    return yaml.read(run / "recipe.yaml")


def _set(content: dict[str, Any], path: str, value: Any) -> None:
    """Lay one flag over the recipe; `--model` is the student of `train`."""
    key, dot, rest = path.partition(".")
    key = "student" if key == "model" else key
    if key == "teacher":
        content.pop("teachers", None)
    elif key == "teachers" and not dot:
        content.pop("teacher", None)
    set_path(content, f"{key}{dot}{rest}", value)


def _shortcuts(options: argparse.Namespace) -> Overrides:
    from limbeck.recipe.override import value_of

    given = ((path, getattr(options, flag, None)) for flag, path in SHORTCUTS.items())
    return [
        (path, value if path == "out" else value_of(value))
        for path, value in given
        if value is not None
    ]


def _refuse_code(value: Any, typed: set[str], path: str = "") -> None:
    """A recipe is data: what it names as code must have been typed on the command line."""
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_code(item, typed, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            _refuse_code(item, typed, f"{path}.{number}")
    elif isinstance(value, str) and _names_code(value) and value not in typed:
        flag = path.removesuffix(".model").removesuffix(".0")
        raise InputError(
            f"{path}: {value!r} would run code that a recipe names; type it on the command line "
            f"instead: --{flag} {value}"
        )


def _names_code(text: str) -> bool:
    return bool(_IMPORT_PATH.match(text)) and text.partition(":")[0] not in _SOURCES


def _words(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def code_flags(overrides: Overrides) -> list[str]:
    """The flags that name code; a resumed run must be told them again."""
    flags = []
    for path, value in overrides:
        if any(isinstance(word, str) and _names_code(word) for word in _words(value)):
            flags += [f"--{path}", *map(str, _words(value))]
    return flags


def own_model(recipe: Recipe, run: str) -> Any:
    """The student that the user's own code builds, where --student names it; else None."""
    if not recipe.student:
        return None
    from limbeck.models.card import read_card
    from limbeck.models.source import build_model

    card = read_card(run)
    return build_model(recipe.student, shape=card.shape, classes=len(card.classes))
