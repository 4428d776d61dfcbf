"""From what a recipe says about the method to the method itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from torch import nn

from limbeck.errors import InputError
from limbeck.methods.base import Method, MethodSpec, Setting, Term
from limbeck.methods.entry import LossEntry
from limbeck.methods.registry import find_method, load_target
from limbeck.methods.term import TermSpec
from limbeck.methods.terms import Terms, term_spec
from limbeck.recipe.validation import explain

Parsed = MethodSpec | list[TermSpec | Term]
"""A checked method: one spec, or the terms of a sum."""

MethodLike = str | dict[str, Any] | MethodSpec | Term | Sequence[Any]
"""A method by name, with options, as a spec, or as a list of terms (names, mappings, `Term`s)."""


def parse_method(value: MethodLike) -> Parsed:
    """Check what a recipe says about the method.

    Raises:
        InputError: unknown name or option, or a value out of range.
    """
    if isinstance(value, Term):
        return [value]
    if isinstance(value, MethodSpec):
        return value
    if isinstance(value, str | dict):
        return _parse_one({"name": value} if isinstance(value, str) else value)
    terms = [_parse_term(item) for item in value]
    if not terms:
        raise InputError("the list of terms is empty; name a method, see `limbeck methods`")
    return terms


def _parse_one(options: dict[str, Any]) -> MethodSpec:
    name = options.get("name")
    if not isinstance(name, str):
        raise InputError("a method needs a 'name'; `limbeck methods` lists them")
    try:
        return spec_class(name).model_validate(options)
    except ValidationError as error:
        raise InputError(explain(error, prefix="method")) from None


def _parse_term(item: Any) -> TermSpec | Term:
    """A term of a list brings no supervised loss of its own; `labels` is a term like others."""
    if isinstance(item, Term | TermSpec):
        return item
    options = {"name": item} if isinstance(item, str) else dict(item)
    spec = _parse_one({"label_weight": 0.0, **options})
    if not isinstance(spec, TermSpec):
        raise InputError(f"{spec.name!r} is a whole method and cannot be a term of a sum")
    return spec


def spec_class(name: str) -> type[MethodSpec]:
    """The spec class of the method called `name`."""
    entry = find_method(name)
    cls: type[MethodSpec] = (
        term_spec(name) if isinstance(entry, LossEntry) else load_target(entry).Spec
    )
    return cls


def build_method(spec: Parsed, student: nn.Module, setting: Setting) -> Method:
    """The method that `spec` describes, around `student`.

    Raises:
        InputError: the run has no teacher, or no live one, where the method needs it.
    """
    method: Method
    if isinstance(spec, list | TermSpec):
        method = Terms(student, setting, spec if isinstance(spec, list) else [spec])
    else:
        method = load_target(find_method(spec.name))(student, setting, spec)
    name = method_name(spec)
    if method.needs_teacher and not setting.teachers:
        raise InputError(f"the method {name!r} needs a teacher; give one with --teacher MODEL")
    if method.online and not setting.live:
        raise InputError(
            f"the method {name!r} runs its teachers on inputs of its own, which stored outputs "
            f"cannot answer; give live teachers"
        )
    return method


def method_name(spec: Parsed) -> str:
    """The method's name; the names of a sum's terms, joined by plus."""
    return "+".join(term.name for term in spec) if isinstance(spec, list) else spec.name


def dump_method(spec: Parsed) -> Any:
    """A spec as plain data, every default written out; a `Term` of Python by name and weight."""
    if not isinstance(spec, list):
        return spec.model_dump(mode="json")
    return [
        {"name": term.name, "weight": term.weight, "keys": list(term.keys)}
        if isinstance(term, Term)
        else term.model_dump(mode="json")
        for term in spec
    ]
