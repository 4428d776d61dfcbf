"""Weighted distillation: each pseudo-label counts as much as keeps the loss's value unbiased."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor

from limbeck.data.base import Record
from limbeck.errors import InputError
from limbeck.functional import estimate_weights
from limbeck.functional.debias import Variant
from limbeck.methods.base import Setting
from limbeck.methods.build import parse_method
from limbeck.methods.entry import LossEntry
from limbeck.methods.pool import Evidence, PoolSpec, PoolTerm
from limbeck.methods.pseudo_labels import label_loss
from limbeck.methods.registry import find_method
from limbeck.methods.term import TermSpec
from limbeck.methods.terms import loss_function, loss_options

if TYPE_CHECKING:
    from limbeck.engine.engine import Engine

LOWEST = 50
"""So many of the most distrusted samples are named in the log."""


class WeightedSpec(PoolSpec):
    """Weighted distillation with unlabelled examples (Iliopoulos et al., NeurIPS 2022).

    Attributes:
        variant: how neighbors are averaged, see `limbeck.functional.estimate_weights`.
        neighbors: None takes half the root of the number of validation samples.
        cap: largest weight before the mean becomes 1; None: none.
        warmup: epochs before the first estimate, in which all weights are 1.
        every: epochs from one estimate to the next, or `once`.
        loss: the loss that is weighted, any that has a value a sample and reads the logits alone,
            as a name or `{name: kd, temperature: 2}`; None is cross-entropy on the pseudo-label.
    """

    name: Literal["weighted"] = "weighted"
    variant: Variant = "ratio"
    neighbors: Annotated[int, Field(ge=1)] | None = None
    cap: Annotated[float, Field(gt=0)] | None = 1.0
    warmup: Annotated[int, Field(ge=0)] = 1
    every: Annotated[int, Field(ge=1)] | Literal["once"] = 1
    loss: str | dict[str, Any] | None = None


class Weighted(PoolTerm):
    """A loss on pseudo-labels, every pool sample with a weight of its own."""

    Spec: ClassVar[type[TermSpec]] = WeightedSpec
    spec: WeightedSpec
    weights: Tensor

    def __init__(self, spec: WeightedSpec, setting: Setting) -> None:
        super().__init__(spec, setting)
        self.loss = sample_loss(spec)
        self.register_buffer("weights", torch.ones(len(self.rows)))

    def begin_epoch(self, engine: Engine) -> None:
        """Estimate the weights again where it is time."""
        if not self._due(engine.clock.epoch) or self.evidence(engine).flawless:
            return
        weights = self._estimate(self.evidence(engine), engine)
        self.weights.copy_(weights)
        self._show(weights, engine)

    def _due(self, epoch: int) -> bool:
        since = epoch - self.spec.warmup
        return since == 0 if self.spec.every == "once" else since >= 0 == since % self.spec.every

    def _estimate(self, evidence: Evidence, engine: Engine) -> Tensor:
        validation, pool = engine.survey("val"), engine.survey("pool")
        return estimate_weights(
            validation["student.logits"][evidence.rows].softmax(1),
            evidence.teacher,
            evidence.y,
            pool["student.logits"].softmax(1),
            evidence.pool,
            hard=self.spec.hard,
            k=self.spec.neighbors,
            variant=self.spec.variant,
            cap=self.spec.cap,
            sample_weight=evidence.sample_weight,
        )

    def _show(self, weights: Tensor, engine: Engine) -> None:
        """The weights' histogram, and whom they distrust most, for the report."""
        counts, edges = torch.histogram(weights, 20)
        engine.event(
            "histogram",
            name="Weights of the pseudo-labels",
            x=edges.tolist(),
            y=counts.int().tolist(),
            xlabel="weight, mean 1",
            ylabel="pool samples",
        )
        order = weights.argsort(stable=True)[:LOWEST]
        ids = cast(Tensor, self.setting.pool)[order]
        engine.event(
            "samples",
            name="Pool samples that are trusted least",
            part="pool",
            index=ids.tolist(),
            value=weights[order].tolist(),
        )

    def values(self, pool: Record, rows: Tensor) -> Tensor:  # noqa: D102
        return self.weights[rows] * self.loss(pool["student.logits"], pool["teacher.logits"])


def sample_loss(spec: WeightedSpec) -> Callable[[Tensor, Tensor], Tensor]:
    """The weighted loss as a function of both logits to one value a sample.

    Raises:
        InputError: it is no plain loss of the logits, or has no value a sample.
    """
    if spec.loss is None:
        return functools.partial(label_loss, hard=spec.hard)
    chosen = cast(TermSpec, parse_method(spec.loss))
    entry = find_method(chosen.name)
    if not (isinstance(entry, LossEntry) and _by_sample(entry)):
        raise InputError(
            f"method.loss {chosen.name!r} has no value of its own for each sample that depends on "
            f"the logits alone; take kd, or another of the logit losses"
        )
    options = {key: getattr(chosen, key) for key in loss_options(entry.function)}
    return functools.partial(loss_function(entry.function), reduction="none", **options)


def _by_sample(entry: LossEntry) -> bool:
    return (
        entry.keys == ("student.logits", "teacher.logits")
        and "reduction" in inspect.signature(loss_function(entry.function)).parameters
    )
