"""Dotted overrides: `--training.epochs 5` and friends, applied to plain data before validation."""

from __future__ import annotations

from typing import Any

from limbeck.errors import InputError
from limbeck.recipe.yaml import parse


def value_of(text: str) -> Any:
    """What a word on the command line means: a number, a truth value, a list, or itself.

    `{crop: {padding: 2}}` is a mapping; a word such as `a: b` without braces is text.
    """
    try:
        value = parse(text)
    except InputError:
        return text
    stray_mapping = isinstance(value, dict) and not text.startswith("{")
    empty = value is None and text not in ("null", "~")
    return text if stray_mapping or empty else value


def set_path(tree: dict[str, Any], path: str, value: Any) -> None:
    """Set `tree["a"]["b"] = value` for the path `a.b`; numbers index lists.

    A bare name where a mapping is needed (`method: kd`, then `method.temperature`) becomes
    `{name: kd}`; for teachers `{model: ...}`, for data `{source: ...}`.
    """
    *parents, last = path.split(".")
    node: Any = tree
    for key in parents:
        node = _descend(node, key, path)
    if isinstance(node, list):
        node[_position(node, last, path)] = value
    else:
        node[last] = value


_BARE = {"data": "source", "teachers": "model", "teacher": "model"}


def _descend(node: Any, key: str, path: str) -> Any:
    if isinstance(node, list):
        position = _position(node, key, path)
        node[position] = _mapping(node[position], "model")
        return node[position]
    child = node.get(key)
    if not isinstance(child, list):
        child = _mapping(child, _BARE.get(key, "name"))
    node[key] = child
    return child


def _mapping(value: Any, bare: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    return {} if value is None else {bare: value}


def _position(node: list[Any], key: str, path: str) -> int:
    if not key.isdigit() or int(key) >= len(node):
        raise InputError(f"--{path}: {key!r} is not a position in a list of {len(node)}")
    return int(key)


def merge(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """`base` with `change` laid over it, mappings merged key by key."""
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        merged[key] = merge(old, value) if both else value  # type: ignore[arg-type]
    return merged
