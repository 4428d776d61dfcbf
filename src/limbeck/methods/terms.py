"""Methods that are a weighted sum of plain losses."""

from __future__ import annotations

import functools
import inspect
import operator
import types
import typing
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, create_model
from torch import Tensor, nn

from limbeck import functional
from limbeck.data.base import Record
from limbeck.methods.base import Clock, Method, MethodSpec, Setting, Term
from limbeck.methods.registry import LossEntry, find_method

Weight = Annotated[float, Field(ge=0)]


class TermSpec(MethodSpec):
    """A plain loss by name; each name's own class adds the loss's hyperparameters.

    Attributes:
        weight: factor of the loss.
        label_weight: factor of the supervised loss beside it.
    """

    weight: Weight = 1.0
    label_weight: Weight = 1.0


@functools.cache
def term_spec(name: str) -> type[TermSpec]:
    """The spec class of the plain loss called `name`, made from its keyword-only arguments."""
    entry = find_method(name)
    if not isinstance(entry, LossEntry):
        raise TypeError(f"{name!r} is not a plain loss")
    fields: dict[str, Any] = {
        "name": (Literal[name], name),
        "weight": (Weight, entry.weight),
        "label_weight": (Weight, entry.label_weight),
    }
    fields.update(_options(entry))
    return create_model(f"{name.title().replace('_', '')}Spec", __base__=TermSpec, **fields)


def _options(entry: LossEntry) -> dict[str, tuple[Any, Any]]:
    """Keyword-only hyperparameters of a loss as pydantic fields."""
    if not entry.function:
        return {}
    loss = getattr(functional, entry.function)
    hints = typing.get_type_hints(loss)
    parameters = inspect.signature(loss).parameters
    typed = {
        option: (_plain_type(hints[option]), parameter.default)
        for option, parameter in parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and option != "reduction"
    }
    return {option: field for option, field in typed.items() if field[0] is not None}


def _plain_type(hint: Any) -> Any:
    """What a recipe can say of an argument: its type without tensors; None: nothing."""
    if hint is Tensor:
        return None
    if isinstance(hint, types.UnionType) and Tensor in hint.__args__:
        return functools.reduce(operator.or_, [arg for arg in hint.__args__ if arg is not Tensor])
    return hint


class Terms(Method):
    """A weighted sum of plain losses and the supervised loss.

    Args:
        student: the student.
        setting: facts about the run.
        specs: the terms; their label weights add up.
    """

    Spec = TermSpec

    def __init__(self, student: nn.Module, setting: Setting, specs: Sequence[TermSpec]) -> None:
        super().__init__(student, setting)
        self.specs = tuple(specs)
        self.terms = [term for spec in specs if (term := _term(spec)) is not None]
        self.label_weight = sum(_label_weight(spec) for spec in specs)
        self.needs_teacher = any(key.startswith("teacher.") for t in self.terms for key in t.keys)
        self.uses_pool = any("y" not in term.keys for term in self.terms)

    def losses(self, batch: Record, clock: Clock) -> dict[str, Tensor]:
        """Every term, and `labels` where its weight is not zero."""
        summands = {term.name: term(batch) for term in self.terms}
        if self.label_weight:
            loss = self.setting.task.loss(batch["student.logits"], batch)
            summands["labels"] = self.label_weight * loss
        return summands


def _label_weight(spec: TermSpec) -> float:
    return spec.weight if spec.name == "labels" else spec.label_weight


def _term(spec: TermSpec) -> Term | None:
    """The summand that a spec describes; None for the supervised loss and for weight zero."""
    entry = find_method(spec.name)
    if not isinstance(entry, LossEntry) or not entry.function or not spec.weight:
        return None
    options = {name: getattr(spec, name) for name in _options(entry)}
    return Term(spec.name, _bind(entry.function, options), entry.keys, spec.weight)


def _bind(function: str, options: dict[str, Any]) -> Callable[..., Tensor]:
    loss: Callable[..., Tensor] = getattr(functional, function)
    return lambda *tensors: loss(*tensors, **options)
