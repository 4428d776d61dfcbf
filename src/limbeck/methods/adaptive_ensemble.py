"""Several teachers whose weights are found in every step, where their gradients agree (AE-KD)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from limbeck.data.base import Record
from limbeck.errors import RunError
from limbeck.functional import (
    ensemble_gradients,
    ensemble_losses,
    feature_gradients,
    fitnet_loss,
    gradient_gram,
    gram_weights,
)
from limbeck.functional.ensemble import CapOn, Scope
from limbeck.functional.min_norm import check_tolerance
from limbeck.methods.base import Clock, Method, MethodSpec, Setting, several_teachers
from limbeck.methods.features import chosen_pairs
from limbeck.methods.gate import Gate
from limbeck.methods.term import Weight
from limbeck.nn.adapters import Adapter

if TYPE_CHECKING:
    from limbeck.engine.engine import Engine

SAFE, SPARE = 0.6, 1.2
"""The published C; and how much above the plain mean's weight one teacher may get."""


class AdaptiveEnsembleSpec(MethodSpec):
    """Adaptive ensemble distillation in gradient space.

    Attributes:
        tolerance: C, the most that one teacher may weigh: 1/M is the plain mean, 1 lets no
            teacher's loss rise; "auto" is 0.6 (published), 1.2/M where that is more or where the
            labels have no weight.
        gate: do not hear a teacher whose gradients oppose the others'.
        space: "logits", or "features" for hints besides.
        scope: gradients of the whole "batch", their "batch_mean" (published code), or weights of
            each "sample".
        normalize: find the weights for gradients of unit length; "auto": for features.
        cap_on: what C bounds then, "alpha" (published code) or "weight".
        weight: a, of the teachers' soft labels.
        label_weight: of the supervised loss.
        temperature: of the soft labels.
        feature_weight: of the hints, from the second epoch on.
        student_tap: module path of the student's feature that is hinted at; "auto": the middle
            stage. A teacher's feature is the first of its own `taps`, else its middle stage.
    """

    name: Literal["adaptive_ensemble"] = "adaptive_ensemble"
    tolerance: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    gate: bool = True
    space: Literal["logits", "features"] = "logits"
    scope: Scope = "batch"
    normalize: bool | Literal["auto"] = "auto"
    cap_on: CapOn = "alpha"
    weight: Weight = 0.9
    label_weight: Weight = 1.0
    temperature: Annotated[float, Field(gt=0)] = 4.0
    feature_weight: Weight = 100.0
    student_tap: str = "auto"


class AdaptiveEnsemble(Method):
    """Agree to disagree: adaptive ensemble KD in gradient space (Du et al., NeurIPS 2020).

    Each step, the teachers' weights make the norm of their joint gradient at the student's logits
    least, with none above the tolerance; they are constants in the loss. Weights, norms and
    cosines are logged as figures. The published rule counts directions, not votes: one teacher
    that contradicts three others gets half of the weight, and without labels the student follows
    it. So a teacher whose gradients oppose the others' is named, and not heard (`gate`, ours).

    Reference code: AnTuo1998/AE-KD, whose space is `scope: batch_mean`.
    """

    Spec: ClassVar[type[MethodSpec]] = AdaptiveEnsembleSpec
    roles = {"student": ("student", "adapters")}  # noqa: RUF012
    partial_teachers = True

    def __init__(self, student: nn.Module, setting: Setting, spec: AdaptiveEnsembleSpec) -> None:
        super().__init__(student, setting)
        several_teachers(setting, spec.name)
        self.spec = spec
        self.tolerance = _tolerance(spec, setting.teachers)
        self.gate = Gate(setting.teachers)
        self.adapters = nn.ModuleList()
        self.tapped: list[str] = []
        if spec.space == "features":
            self._tap(setting)

    def _tap(self, setting: Setting) -> None:
        """One student's feature beside one of each teacher, behind an adapter of its own."""
        seen = setting.observe((), ())
        paths = [_own_tap(seen, place) for place in range(setting.teachers)]
        ours, common = self.spec.student_tap, ""
        if ours == "auto" or not all(paths):
            ((student, common),) = chosen_pairs("auto", setting, "middle")
            ours = student if ours == "auto" else ours
        # Every teacher records its own taps, and what the method asks for.
        self.student_taps, self.teacher_taps = (ours,), () if all(paths) else (common,)
        paths = [path or common for path in paths]
        self.tapped = [f"teacher.{place}.{path}" for place, path in enumerate(paths)]
        seen = setting.observe(self.student_taps, self.teacher_taps)
        shape = tuple(seen[f"student.{ours}"].shape[1:])
        shapes = [tuple(seen[key].shape[1:]) for key in self.tapped]
        self.adapters.extend(Adapter(shape, goal, kind="norm") for goal in shapes)

    def describe(self) -> list[str]:
        """The tolerance, and which features meet."""
        lines = [f"adaptive_ensemble: no teacher weighs more than {self.tolerance:.3g}"]
        return lines + [f"hints: student {self.student_taps[0]} follows {t}" for t in self.tapped]

    def step(self, batch: Record, engine: Engine) -> dict[str, Tensor]:
        """Weights of this batch, then one step down the weighted loss."""
        spec, student = self.spec, batch["student.logits"]
        teachers = torch.stack(
            [batch[f"teacher.{place}.logits"] for place in range(self.setting.teachers)]
        )
        gradients = ensemble_gradients(student, teachers, temperature=spec.temperature)
        # The one wait for the device of a step: weights are found on the host.
        gram = self._gram(gradients, "batch", engine).cpu()
        heard = self._heard(gram, engine)
        if spec.scope == "batch":
            weights = self._solve(gram, heard, normalize=spec.normalize is True)
        else:
            other = self._gram(gradients, spec.scope, engine)
            weights = self._solve(other, heard, normalize=spec.normalize is True)
        weights = weights.to(gradients)
        self._record(gram, weights, engine)
        losses = ensemble_losses(
            student, teachers, temperature=spec.temperature, per_sample=weights.dim() == 2
        )
        terms = {"ensemble": spec.weight * _weighted(weights, losses)}
        if spec.label_weight:
            terms["labels"] = spec.label_weight * self.setting.task.loss(student, batch)
        if self.tapped and _hints_count(engine.clock):
            terms["hints"] = spec.feature_weight * self._hints(batch, heard, engine)
        return self.descend(terms, engine)

    def _gram(self, gradients: Tensor, scope: Scope, engine: Engine) -> Tensor:
        """The Gram over all ranks, up to a factor; that of each sample needs no other rank."""
        if scope == "batch_mean":
            (mean,) = engine.ranks.mean([gradients.mean(1, keepdim=True)])
            return gradient_gram(mean)
        gram = gradient_gram(gradients, scope=scope)
        return gram if scope == "sample" else engine.ranks.mean([gram])[0]

    def _heard(self, gram: Tensor, engine: Engine) -> list[int]:
        """The teachers that count in this step.

        Raises:
            RunError: some teachers' gradients are not finite. Where all are, the student is not,
                which the engine reports.
        """
        everyone = list(range(len(gram)))
        bad = (~gram.diagonal().isfinite()).nonzero()[:, 0].tolist()
        if bad == everyone:
            return everyone
        members = engine.teachers.members
        if bad:
            raise RunError(
                f"the gradient of teacher {bad[0]} ({members[bad[0]].name}) is not finite at step "
                f"{engine.done + 1}: check its logits and its input"
            )
        heard = self.gate(gram)
        if not self.spec.gate:
            return everyone
        if engine.ranks.first:
            self.gate.warn([teacher.name for teacher in members], engine.done)
        return [place for place, counts in enumerate(heard.tolist()) if counts]

    def _solve(self, gram: Tensor, heard: list[int], *, normalize: bool) -> Tensor:
        """Weights (M,) or (B, M) of those who are heard, 0 for the others."""
        if not bool(gram.isfinite().all()):
            return gram.new_full(gram.shape[:-1], 1 / gram.shape[-1])
        weights = gram.new_zeros(gram.shape[:-1])
        weights[..., heard] = gram_weights(
            gram[..., heard, :][..., heard],
            tolerance=max(self.tolerance, 1 / len(heard)),
            normalize=normalize,
            cap_on=self.spec.cap_on,
        )
        return weights

    def _hints(self, batch: Record, heard: list[int], engine: Engine) -> Tensor:
        """Weighted squared distances of the student's feature from every teacher's."""
        ours = batch[f"student.{self.student_taps[0]}"]
        losses = [
            fitnet_loss(*adapter(ours, batch[key]))
            for adapter, key in zip(self.adapters, self.tapped, strict=True)
        ]
        scope: Scope = "batch_mean" if self.spec.scope == "batch_mean" else "batch"
        gram = self._gram(feature_gradients(losses, ours), scope, engine)
        weights = self._solve(gram, heard, normalize=self.spec.normalize is not False)
        engine.record("hint_weights", weights)
        weights = weights.to(losses[0])
        return _weighted(weights, torch.stack(losses))

    def _record(self, gram: Tensor, weights: Tensor, engine: Engine) -> None:
        """Figures of the log: means over the steps of an interval."""
        engine.record("weights", weights if weights.dim() == 1 else weights.mean(0))
        engine.record("norms", gram.diagonal().clamp(min=0).sqrt())
        engine.record("cosines", self.gate.cosines.clone())
        engine.record("capped", (weights > self.tolerance - 1e-6).float().amax(-1).mean())


def _weighted(weights: Tensor, losses: Tensor) -> Tensor:
    """Σ weights · losses; weights (B, M) meet losses (M, B), and the mean is taken over samples."""
    if weights.dim() == 1:
        return (weights * losses).sum()
    return (weights.T * losses).sum(0).mean()


def _hints_count(clock: Clock) -> bool:
    """Published: not in the first epoch. A training of one epoch has them from its start."""
    return clock.epoch > 0 or clock.steps == clock.steps_per_epoch


def _own_tap(seen: Record, place: int) -> str:
    """The first path that teacher `place` records by its own configuration, or nothing."""
    prefix = f"teacher.{place}."
    paths: Sequence[str] = [key.removeprefix(prefix) for key in seen if key.startswith(prefix)]
    return next((path for path in paths if path != "logits"), "")


def _tolerance(spec: AdaptiveEnsembleSpec, teachers: int) -> float:
    if spec.tolerance == "auto":
        spare = min(SPARE / teachers, 1.0)
        return max(SAFE, spare) if spec.label_weight else spare
    check_tolerance(spec.tolerance, teachers)
    if spec.tolerance > 1:
        warnings.warn(f"tolerance {spec.tolerance:g} is above 1 and counts as 1", stacklevel=3)
    return min(spec.tolerance, 1.0)
