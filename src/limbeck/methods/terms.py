"""Methods that are a weighted sum of terms."""

from __future__ import annotations

import functools
import inspect
import operator
import types
import typing
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import torch
from pydantic import Field, create_model
from torch import Tensor, nn

from limbeck import functional
from limbeck.data.base import Record
from limbeck.errors import InputError
from limbeck.methods.base import Clock, Method, Setting, TapPair, Term
from limbeck.methods.entry import LossEntry
from limbeck.methods.registry import find_method, load_target
from limbeck.methods.term import TermModule, TermSpec, Weight
from limbeck.models.imports import import_object

if TYPE_CHECKING:
    from limbeck.engine.engine import Engine


@functools.cache
def term_spec(name: str) -> type[TermSpec]:
    """The spec class of the plain loss called `name`, made from its keyword-only arguments."""
    entry = cast(LossEntry, find_method(name))
    fields: dict[str, Any] = {
        "name": (Literal[name], name),
        "weight": (Weight, entry.weight),
        "label_weight": (Weight, entry.label_weight),
    }
    fields.update(loss_options(entry.function))
    return create_model(f"{name.title().replace('_', '')}Spec", __base__=TermSpec, **fields)


def loss_function(name: str) -> Callable[..., Tensor]:
    """The function that an entry names: one of ours, or `module:function` of another package."""
    loss: Callable[..., Tensor] = import_object(name) if ":" in name else getattr(functional, name)
    return loss


def loss_options(function: str) -> dict[str, tuple[Any, Any]]:
    """Keyword-only hyperparameters of a loss as pydantic fields."""
    if not function:
        return {}
    loss = loss_function(function)
    hints = typing.get_type_hints(loss)
    typed = {
        option: (_bounded(option, plain_type(hints[option])), parameter.default)
        for option, parameter in inspect.signature(loss).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and option not in _UNSAID
    }
    return {option: field for option, field in typed.items() if field[0] is not None}


_UNSAID = ("reduction", "ignore_index", "normalized")  # settled by what a term reads


def _bounded(option: str, hint: Any) -> Any:
    """A temperature is positive; refused here, before anything runs."""
    return Annotated[hint, Field(gt=0)] if option == "temperature" else hint


def plain_type(hint: Any) -> Any:
    """What a recipe can say of an argument: its type without tensors; None: nothing."""
    if hint is Tensor:
        return None
    if isinstance(hint, types.UnionType) and Tensor in hint.__args__:
        return functools.reduce(operator.or_, [arg for arg in hint.__args__ if arg is not Tensor])
    return hint


class PlainTerm(TermModule):
    """A pure function of what is recorded in the batch."""

    def __init__(
        self,
        spec: TermSpec,
        setting: Setting,
        loss: Callable[..., Tensor],
        keys: Sequence[str],
        *,
        coupled: bool = False,
    ) -> None:
        super().__init__(spec, setting)
        self.coupled = coupled
        self.loss = loss
        self.keys = tuple(keys)
        self.labeled = "y" in keys
        self.needs_teacher = any(key.startswith("teacher.") for key in keys)

    def forward(self, batch: Record, clock: Clock) -> Tensor:  # noqa: D102
        return self.loss(*(self.read(batch, key) for key in self.keys))


class Terms(Method):
    """A weighted sum of terms and the supervised loss.

    Args:
        student: the student.
        setting: facts about the run.
        specs: the terms, as specs or as your own `Term`s; their label weights add up.
    """

    Spec = TermSpec
    roles = {"student": ("student", "terms")}  # noqa: RUF012

    def __init__(
        self, student: nn.Module, setting: Setting, specs: Sequence[TermSpec | Term]
    ) -> None:
        super().__init__(student, setting)
        self.label_weight = sum(_label_weight(spec) for spec in specs)
        built = [term for spec in specs if (term := _build(spec, setting)) is not None]
        if not built and not self.label_weight:
            raise InputError("every term of the method has weight 0; give one of them a weight")
        self.names = _unique([term.spec.name for term in built])
        self.terms = nn.ModuleList(built)
        self.needs_teacher = any(term.needs_teacher for term in built)
        self.uses_pool = any(not term.labeled and term.spec.samples != "labeled" for term in built)
        self.student_taps = _union(term.student_taps for term in built)
        self.coupled = [name for name, term in zip(self.names, built, strict=True) if term.coupled]
        self.teacher_taps = _union(term.teacher_taps for term in built)

    def describe(self) -> list[str | TapPair]:
        """What every term says."""
        return [line for term in cast(list[TermModule], self.terms) for line in term.describe()]

    def prepare(self, engine: Engine) -> None:
        """What every term prepares."""
        for term in cast(list[TermModule], self.terms):
            term.prepare(engine)

    def begin_epoch(self, engine: Engine) -> None:
        """What every term does before an epoch."""
        for term in cast(list[TermModule], self.terms):
            term.begin_epoch(engine)

    def losses(self, batch: Record, clock: Clock) -> dict[str, Tensor]:
        """Every term times its weight, and `labels` where its weight is not zero."""
        summands = {
            name: term.spec.weight * term.balanced(batch, clock)
            for name, term in zip(self.names, cast(list[TermModule], self.terms), strict=True)
        }
        if self.label_weight:
            loss = self.setting.task.loss(batch["student.logits"], batch)
            summands["labels"] = self.label_weight * loss
        return summands


def _label_weight(spec: TermSpec | Term) -> float:
    if isinstance(spec, Term):
        return 0.0
    return spec.weight if spec.name == "labels" else spec.label_weight


def _build(spec: TermSpec | Term, setting: Setting) -> TermModule | None:
    """The module of a term; None for the supervised loss and for weight zero."""
    if isinstance(spec, Term):
        return PlainTerm(
            TermSpec(name=spec.name, weight=spec.weight), setting, spec.loss, spec.keys
        )
    if not spec.weight or spec.name == "labels":
        return None
    entry = find_method(spec.name)
    if not isinstance(entry, LossEntry):
        cls: type[TermModule] = load_target(entry)
        return cls(spec, setting)
    options = {name: getattr(spec, name) for name in loss_options(entry.function)}
    loss = functools.partial(loss_function(entry.function), **options)
    _try(loss, entry.keys, setting.classes)
    return PlainTerm(spec, setting, loss, entry.keys, coupled=entry.coupled)


@torch.no_grad()
def _try(loss: Callable[..., Tensor], keys: Sequence[str], classes: int) -> None:
    """What the loss does not take, as a negative weight, is refused before training."""
    logits = torch.zeros(2, classes)
    known = {"student.logits": logits, "teacher.logits": logits, "y": torch.zeros(2).long()}
    if known.keys() >= set(keys):
        loss(*(known[key] for key in keys))


def _unique(names: Sequence[str]) -> list[str]:
    """The names, numbered where one occurs again."""
    return [
        name if names[:place].count(name) == 0 else f"{name}_{names[:place].count(name) + 1}"
        for place, name in enumerate(names)
    ]


def _union(lists: typing.Iterable[Sequence[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(path for paths in lists for path in paths))
