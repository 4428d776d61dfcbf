"""Several teachers by rules that users expect: means, and weights of each sample or batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from limbeck.data.base import Record
from limbeck.errors import InputError
from limbeck.functional import ensemble_losses, kd_loss
from limbeck.methods.base import Method, MethodSpec, Setting, several_teachers
from limbeck.methods.term import Weight

if TYPE_CHECKING:
    from limbeck.engine.engine import Engine

Combine = Literal["mean", "logits", "weights", "confidence", "agreement", "best", "random"]


class EnsembleSpec(MethodSpec):
    """Several teachers under one rule.

    Attributes:
        combine: "mean" of the teachers' probabilities; of their "logits"; by fixed "weights"; by
            each teacher's "confidence" in a sample (its largest probability); by its "agreement"
            on a sample with the others (inner product of its probabilities with their mean);
            "best": the one that gives a sample's label most, the most confident one where there is
            none; "random": one teacher for each batch.
        weights: of the teachers, for `combine: weights`; scaled to sum 1.
        drop: chance that a teacher is left out of a batch; one always stays.
        weight: of the teachers' soft labels.
        label_weight: of the supervised loss.
        temperature: of the soft labels.
    """

    name: Literal["ensemble"] = "ensemble"
    combine: Combine = "mean"
    weights: list[Annotated[float, Field(ge=0)]] = []  # noqa: RUF012
    drop: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight: Weight = 0.9
    label_weight: Weight = 1.0
    temperature: Annotated[float, Field(gt=0)] = 4.0


class Ensemble(Method):
    """T² Σ α_m KL(teacher m ‖ student), with weights α by a fixed rule.

    A teacher that knows only some of the classes is heard on those; with logits that are averaged,
    every class must be known to all. The adaptive weights are another method's, see
    `limbeck.methods.adaptive_ensemble`.
    """

    Spec: ClassVar[type[MethodSpec]] = EnsembleSpec
    partial_teachers = True

    def __init__(self, student: nn.Module, setting: Setting, spec: EnsembleSpec) -> None:
        super().__init__(student, setting)
        several_teachers(setting, spec.name)
        named = spec.combine == "weights"
        if named != bool(spec.weights) or (named and len(spec.weights) != setting.teachers):
            raise InputError(
                f"method.weights names {len(spec.weights)} weights for {setting.teachers} teachers "
                f"under combine: {spec.combine}: give one for each, with combine: weights"
            )
        if named and not sum(spec.weights):
            raise InputError("method.weights are all 0: give one teacher a weight")
        self.spec = spec
        self.partial_teachers = spec.combine != "logits"

    def step(self, batch: Record, engine: Engine) -> dict[str, Tensor]:
        """One step down the loss against the teachers that this batch hears."""
        spec, student = self.spec, batch["student.logits"]
        heard = self._heard(engine)
        teachers = torch.stack([batch[f"teacher.{place}.logits"] for place in heard])
        if spec.combine == "logits":
            loss = kd_loss(student, teachers.mean(0), temperature=spec.temperature)
        else:
            weights = self._weights(teachers, heard, batch)
            losses = ensemble_losses(
                student, teachers, temperature=spec.temperature, per_sample=True
            )
            loss = (weights * losses).sum(0).mean()
        terms = {"ensemble": spec.weight * loss}
        if spec.label_weight:
            terms["labels"] = spec.label_weight * self.setting.task.loss(student, batch)
        return self.descend(terms, engine)

    def _heard(self, engine: Engine) -> list[int]:
        """Which teachers this batch hears."""
        everyone = list(range(self.setting.teachers))
        if self.spec.combine == "random":
            return [_draw(len(everyone), engine)]
        if not self.spec.drop:
            return everyone
        chances = torch.rand(
            len(everyone), generator=engine.generator("drop"), device=engine.device
        )
        stay = [place for place, chance in enumerate(chances.tolist()) if chance >= self.spec.drop]
        return stay or [_draw(len(everyone), engine)]

    def _weights(self, teachers: Tensor, heard: list[int], batch: Record) -> Tensor:
        """Weights (M, B), or (M, 1), that sum to 1 over the teachers."""
        combine, count = self.spec.combine, len(teachers)
        if combine == "best":
            return _best(teachers.softmax(-1), batch)
        if combine == "weights":
            raw = teachers.new_tensor([self.spec.weights[place] for place in heard])[:, None]
        elif combine == "confidence":
            raw = teachers.softmax(-1).amax(-1)
        elif combine == "agreement" and count > 1:
            chances = teachers.softmax(-1)
            raw = (chances * (chances.sum(0) - chances)).sum(-1)
        else:
            raw = teachers.new_ones(count, 1)
        return raw / raw.sum(0).clamp(min=1e-12)


def _best(chances: Tensor, batch: Record) -> Tensor:
    """1 for the teacher that a sample follows: that which gives its label the largest chance."""
    scores = chances.amax(-1)
    if "y" in batch:
        labelled = len(batch["y"])
        index = batch["y"].expand(len(chances), -1)[..., None]
        truth = chances[:, :labelled].gather(-1, index)[..., 0]
        scores = torch.cat([truth, scores[:, labelled:]], 1)
    return torch.zeros_like(scores).scatter(0, scores.argmax(0, keepdim=True), 1.0)


def _draw(count: int, engine: Engine) -> int:
    generator = engine.generator("teacher")
    return int(torch.randint(count, (1,), generator=generator, device=engine.device))
