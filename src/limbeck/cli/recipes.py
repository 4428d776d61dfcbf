"""From a recipe file and flags to a checked recipe."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from limbeck.cli.arguments import SYNONYMS, Overrides
from limbeck.cli.verbs import SHORTCUTS
from limbeck.data.paths import check_source
from limbeck.errors import InputError
from limbeck.methods.registry import find_method
from limbeck.models.ref import names_code, parse_ref
from limbeck.recipe import yaml
from limbeck.recipe.override import set_path
from limbeck.recipe.spec import Recipe
from limbeck.recipe.validation import explain


def read_recipe(options: argparse.Namespace, overrides: Overrides) -> Recipe:
    """The recipe of a command: its file (or the resumed run's), then the flags.

    Raises:
        InputError: not readable, unknown keys, names that stand for nothing, or code named in the
            file.
    """
    content: dict[str, Any] = {}
    resumed = getattr(options, "resume", None)
    if resumed:
        content = _resumed(Path(resumed), getattr(options, "recipe", None)) | {"out": resumed}
    elif getattr(options, "recipe", None):
        content = yaml.read(Path(options.recipe))
    if "teacher" in content and "teachers" not in content:
        content["teachers"] = content.pop("teacher")
    if "teachers" in content:
        content["teachers"] = _words(content["teachers"])
    before = copy.deepcopy(content)
    for path, value in [*overrides, *_shortcuts(options)]:
        _set(content, path, value)
    typed = {str(word) for _, value in overrides for word in _words(value)}
    _refuse_code(content, typed)
    recipe = _checked(content)
    if resumed:
        recipe = _gone_on(_checked(before), recipe)
    _check_names(recipe)
    return recipe


def _checked(content: dict[str, Any]) -> Recipe:
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise InputError(explain(error)) from None


def _gone_on(before: Recipe, given: Recipe) -> Recipe:
    """The recipe of the run that goes on, on the machine that the flags name.

    Raises:
        InputError: a flag says otherwise than the run; its schedule, for one, would not fit.
    """
    changes = _changes(before.model_dump(), given.model_dump(exclude_unset=True))
    for path, old, new in changes:
        if path not in MACHINE and path != "out":
            raise InputError(
                f"the run in {before.out} has {path} {old}, and --resume goes on with it as it is, "
                f"not with {new}; start a new run, without --resume, for another recipe"
            )
    machine = {key: getattr(given.training, key) for key in ("device", "workers")}
    return before.model_copy(update={"training": before.training.model_copy(update=machine)})


MACHINE = ("training.device", "training.workers")
"""What may differ when a run goes on: it changes no result."""


def _changes(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted paths at which `new` says otherwise than `old`; a bare name is that of a mapping."""
    if isinstance(new, dict) and isinstance(old, dict):
        for key in new:
            yield from _changes(old.get(key), new[key], f"{path}.{key}" if path else key)
    elif isinstance(new, list) and isinstance(old, list) and len(new) == len(old):
        for place, pair in enumerate(zip(old, new, strict=True)):
            yield from _changes(*pair, f"{path}.{place}")
    elif new != (old.get("name") if isinstance(old, dict) else old):
        yield path, old, new


def _check_names(recipe: Recipe) -> None:
    """Look up what can be looked up before torch is loaded."""
    terms = recipe.method if isinstance(recipe.method, list) else [recipe.method]
    for term in terms:
        name = term.get("name") if isinstance(term, dict) else term
        if isinstance(name, str):
            find_method(name)
    for source in (recipe.data.source, recipe.data.unlabeled):
        if source is not None:
            check_source(source)
    for model in (recipe.student, *(teacher.model for teacher in recipe.teachers)):
        if model:
            parse_ref(model)


def _resumed(run: Path, recipe: str | None) -> dict[str, Any]:
    if recipe:
        raise InputError("give either a recipe or --resume RUN: a run holds its own recipe")
    if not (run / "recipe.yaml").exists():
        raise InputError(f"there is no run to resume in {run}: it holds no recipe.yaml")
    return yaml.read(run / "recipe.yaml")


def _set(content: dict[str, Any], path: str, value: Any) -> None:
    """Lay one flag over the recipe; `--teacher.input` is that of the only teacher."""
    key, dot, rest = path.partition(".")
    if key in ("teacher", "teachers") and not dot:
        value = _words(value)
    elif key == "teacher":
        dot = ".0."
    elif key == "method" and dot:
        content.setdefault("method", Recipe.model_fields["method"].default)
    set_path(content, f"{SYNONYMS.get(key, key)}{dot}{rest}", value)


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
    elif isinstance(value, str) and _is_code(path, value) and value not in typed:
        flag = path.removesuffix(".model").removesuffix(".0")
        raise InputError(
            f"{path}: {value!r} would run code that a recipe names; type it on the command line "
            f"instead: --{flag} {value}"
        )


def _is_code(path: str, text: str) -> bool:
    """Whether `text` would be imported; what stands below `data` never is, a metric always."""
    if path.startswith("data."):
        return False
    return names_code(text) or (path.endswith("metric") and ":" in text)


def _words(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def code_flags(overrides: Overrides) -> list[str]:
    """The flags that name code; a resumed run must be told them again."""
    flags = []
    for path, value in overrides:
        if any(isinstance(word, str) and _is_code(path, word) for word in _words(value)):
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
