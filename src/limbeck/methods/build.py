"""From what a recipe says about the method to the method itself."""

from __future__ import annotations

import importlib
from typing import Any

from pydantic import ValidationError
from torch import nn

from limbeck.errors import InputError
from limbeck.methods.base import Method, MethodSpec, Setting
from limbeck.methods.registry import LossEntry, find_method
from limbeck.methods.terms import Terms, TermSpec, term_spec
from limbeck.recipe.validation import explain

MethodLike = str | dict[str, Any] | MethodSpec | list[Any]
"""A method by name, with options, as a spec, or as a list of terms."""


def parse_method(value: MethodLike) -> MethodSpec | list[TermSpec]:
    """Check what a recipe says about the method.

    Raises:
        InputError: unknown name or option, or a value out of range.
    """
    if isinstance(value, list):
        return [_parse_term(item) for item in value]
    if isinstance(value, MethodSpec):
        return value
    options = {"name": value} if isinstance(value, str) else dict(value)
    name = options.get("name")
    if not isinstance(name, str):
        raise InputError("a method needs a 'name'; `limbeck methods` lists them")
    return _validate(spec_class(name), options)


def _parse_term(item: Any) -> TermSpec:
    """A term of a list brings no supervised loss of its own; `labels` is a term like others."""
    options = {"name": item} if isinstance(item, str) else dict(item)
    spec = parse_method({"label_weight": 0.0, **options})
    if not isinstance(spec, TermSpec):
        raise InputError(f"{spec.name!r} is a whole method and cannot be a term of a sum")
    return spec


def _validate(cls: type[MethodSpec], options: dict[str, Any]) -> MethodSpec:
    try:
        return cls.model_validate(options)
    except ValidationError as error:
        raise InputError(explain(error, prefix="method")) from None


def spec_class(name: str) -> type[MethodSpec]:
    """The spec class of the method called `name`."""
    entry = find_method(name)
    return term_spec(name) if isinstance(entry, LossEntry) else method_class(name).Spec


def method_class(name: str) -> type[Method]:
    """The class of the method called `name`."""
    entry = find_method(name)
    if isinstance(entry, LossEntry):
        return Terms
    module, _, attribute = entry.target.partition(":")
    cls: type[Method] = getattr(importlib.import_module(module), attribute)
    return cls


def build_method(
    spec: MethodSpec | list[TermSpec], student: nn.Module, setting: Setting
) -> Method:
    """The method that `spec` describes, around `student`.

    Raises:
        InputError: the run has no teacher, or no live one, where the method needs it.
    """
    if isinstance(spec, TermSpec):
        spec = [spec]
    if isinstance(spec, list):
        method: Method = Terms(student, setting, spec)
    else:
        method = method_class(spec.name)(student, setting, spec)  # type: ignore[arg-type]
    name = "+".join(term.name for term in spec) if isinstance(spec, list) else spec.name
    if method.needs_teacher and not setting.teachers:
        raise InputError(f"the method {name!r} needs a teacher; give one with --teacher MODEL")
    if method.online and not setting.live:
        raise InputError(
            f"the method {name!r} runs its teachers on inputs of its own, which stored outputs "
            f"cannot answer; give live teachers"
        )
    return method


def dump_method(spec: MethodSpec | list[TermSpec]) -> Any:
    """A spec as plain data, every default written out."""
    if isinstance(spec, list):
        return [term.model_dump(mode="json") for term in spec]
    return spec.model_dump(mode="json")
