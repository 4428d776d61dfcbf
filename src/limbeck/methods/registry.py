"""The registry: every method by name, in one line each. Torch is not imported here.

The lines stand in `limbeck.methods.entries`, a file a family. Other packages add methods through
the entry-point group `limbeck.methods`, whose values are `Entry` objects.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import TYPE_CHECKING, Any

from limbeck.errors import InputError, nearest
from limbeck.methods.entries import features, logits, own, pool, several
from limbeck.methods.entry import Entry

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

METHODS: dict[str, Entry] = {
    **logits.METHODS,
    **features.METHODS,
    **own.METHODS,
    **pool.METHODS,
    **several.METHODS,
}


def register(cls: Any, *, summary: str = "", paper: str = "", needs: str = "logits") -> Any:
    """Make a `Method` or `TermModule` of your own known by its Spec's name; usable as a decorator.

    For notebooks and scripts; an installed package has the entry-point group `limbeck.methods`.

    Args:
        cls: its `Spec` has a `name` with a default.
        summary: one line for `limbeck methods`.
        paper: its source.
        needs: what it needs besides the student.
    """
    name = cls.Spec.model_fields["name"].default
    METHODS[name] = Entry(summary, paper, needs, f"{cls.__module__}:{cls.__qualname__}")
    all_methods.cache_clear()
    return cls


def load_target(entry: Entry) -> Any:
    """The class that an entry names, imported now."""
    module, _, name = entry.target.partition(":")
    return getattr(importlib.import_module(module), name)


@cache
def all_methods() -> dict[str, Entry]:
    """The built-in methods and those of installed packages; built-in names win."""
    from importlib.metadata import entry_points

    found = {point.name: _plugin(point) for point in entry_points(group="limbeck.methods")}
    return {**found, **METHODS}


def _plugin(point: EntryPoint) -> Entry:
    """The entry that another package adds; one that is broken is named, not passed over."""
    try:
        entry = point.load()
    except Exception as error:
        raise InputError(
            f"the method {point.name!r} of an installed package ({point.value}) cannot be loaded: "
            f"{error}; repair or remove that package"
        ) from None
    if not isinstance(entry, Entry):
        raise InputError(
            f"the method {point.name!r} of an installed package ({point.value}) is no "
            f"limbeck.methods.Entry but {type(entry).__name__}"
        )
    return entry


def find_method(name: str) -> Entry:
    """The entry called `name`.

    Raises:
        InputError: no method has that name.
    """
    # Built-in names do not wait for what other packages bring, nor fail with it.
    methods = METHODS if name in METHODS else all_methods()
    if name not in methods:
        raise InputError(
            f"unknown method {name!r}{nearest(name, methods)}; `limbeck methods` lists all: "
            f"{', '.join(methods)}"
        )
    return methods[name]
