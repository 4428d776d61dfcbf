"""Factor transfer: the student translates its features into a paraphrase of the teacher's."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from limbeck.data.base import Record
from limbeck.errors import InputError, RunError
from limbeck.functional import factor_loss, kd_loss
from limbeck.methods.base import Clock, Method, MethodSpec, Setting, TapPair
from limbeck.methods.features import TapPairs, chosen_pairs, one_teacher, tap_pairs
from limbeck.methods.term import Weight
from limbeck.nn.adapters import Adapter, Shape, width, with_width
from limbeck.nn.factor import Dims, Paraphraser, Translator, factor_channels
from limbeck.recipe.spec import Spec

if TYPE_CHECKING:
    from limbeck.engine.engine import Engine

POOR = 0.5
"""Share of the features' variance that a paraphraser may lose before the user is warned."""


class PrepareSpec(Spec):
    """How the paraphrasers are trained, before the student.

    Attributes:
        epochs: passes over the training's batches; 0 leaves them at their random start.
        lr: of Adam.
        rec: distance of the restored features, "l1" (official code) or "l2" (paper).
        source: folder of a run whose paraphrasers, of the same taps and rate, are taken instead.
    """

    epochs: Annotated[int, Field(ge=0)] = 6
    lr: Annotated[float, Field(gt=0)] = 1e-3
    rec: Literal["l1", "l2"] = "l1"
    source: str | None = None


class FactorTransferSpec(MethodSpec):
    """Factor transfer.

    Attributes:
        taps: pairs of module paths, (student's, teacher's); "auto": the last stages.
        rate: k, channels of the factor over those of the teacher's features.
        weight: of the factor loss, for any size d of a factor: the official 500 at d = 2048 is 11.
        beta: the official weight on the mean over a factor's elements, in place of `weight`.
        p: norm of the difference, 1 or 2.
        label_weight: of the supervised loss.
        kd_weight: of the divergence from the teacher's soft labels.
        temperature: of the soft labels.
        prepare: how the paraphrasers are trained.
    """

    name: Literal["factor_transfer"] = "factor_transfer"
    taps: TapPairs = "auto"
    rate: Annotated[float, Field(gt=0)] = 0.5
    weight: Weight = 11.0
    beta: Weight | None = None
    p: Literal[1, 2] = 1
    label_weight: Weight = 1.0
    kd_weight: Weight = 0.0
    temperature: Annotated[float, Field(gt=0)] = 4.0
    prepare: PrepareSpec = PrepareSpec()


class FactorTransfer(Method):
    """Paraphrasing complex network (Kim, Park and Kwak, NeurIPS 2018, arXiv:1802.04977).

    `prepare` trains a paraphraser of each tap on the teacher's features, without labels; then
    student and translators learn. The paraphrasers lie in the run's checkpoints, the student is
    delivered without any of them.

    Reference code: Jangho-Kim/Factor-Transfer-pytorch@19cce26.
    """

    Spec: ClassVar[type[MethodSpec]] = FactorTransferSpec
    roles = {"student": ("student", "translators")}  # noqa: RUF012

    rec_rel: Tensor

    def __init__(self, student: nn.Module, setting: Setting, spec: FactorTransferSpec) -> None:
        super().__init__(student, setting)
        one_teacher(setting, spec.name)
        self.spec = spec
        self.pairs = chosen_pairs(spec.taps, setting, "last")
        self.student_taps = tuple(dict.fromkeys(tap for tap, _ in self.pairs))
        self.teacher_taps = tuple(dict.fromkeys(tap for _, tap in self.pairs))
        self._build(setting.observe(self.student_taps, self.teacher_taps))
        # The share of the variance of the teacher's features that each paraphraser loses.
        self.register_buffer("rec_rel", torch.full((len(self.pairs),), torch.nan))
        if spec.prepare.source is not None:
            self._take(spec.prepare.source)

    def _build(self, seen: Record) -> None:
        """Paraphrasers, translators, and what brings their factors to one grid."""
        paraphrasers, translators, adapters = [], [], []
        self.shapes = []
        for ours, theirs in self.pairs:
            student, teacher = seen[f"student.{ours}"].cpu(), seen[f"teacher.{theirs}"].cpu()
            self.shapes.append((_shape(student), _shape(teacher)))
            channels = width(_shape(teacher))
            factor = factor_channels(channels, self.spec.rate)
            dims = _dims(student, ours), _dims(teacher, theirs)
            signed = bool((teacher < 0).float().mean() > 0.01)
            paraphrasers.append(Paraphraser(channels, self.spec.rate, dims=dims[1], signed=signed))
            translators.append(Translator(width(_shape(student)), factor, dims=dims[0]))
            shapes = [with_width(shape, factor) for shape in self.shapes[-1]]
            adapters.append(Adapter(shapes[0], shapes[1], channels=False))
        self.paraphrasers = nn.ModuleList(paraphrasers).requires_grad_(False)
        self.translators = nn.ModuleList(translators)
        self.adapters = nn.ModuleList(adapters)

    def _take(self, run: str) -> None:
        """The paraphrasers of an earlier run.

        Raises:
            InputError: no checkpoint there, or paraphrasers of other taps or another rate.
        """
        earlier = {} if self.setting.earlier is None else self.setting.earlier(run)
        wanted = self.paraphrasers.state_dict()
        found = {key: earlier.get(f"paraphrasers.{key}") for key in wanted}
        fits = [one is not None and one.shape == wanted[key].shape for key, one in found.items()]
        if not all(fits):
            raise InputError(
                f"method.prepare.source: the run {run} holds no paraphrasers for the taps "
                f"{', '.join(tap for _, tap in self.pairs)} at rate {self.spec.rate:g}; name a run "
                f"of factor_transfer with the same teacher, taps and rate"
            )
        self.paraphrasers.load_state_dict(found)
        self.rec_rel.copy_(earlier["rec_rel"])

    def describe(self) -> list[TapPair]:
        """Each pair of taps, with the shapes of one sample."""
        return tap_pairs(self.spec.name, self.pairs, self.shapes)

    def prepare(self, engine: Engine) -> None:
        """Train the paraphrasers on the teacher's features of the training's own batches."""
        if self.spec.prepare.source is not None:
            return
        self.paraphrasers.requires_grad_(True)
        parameters = list(self.paraphrasers.parameters())
        optimizer = torch.optim.Adam(parameters, lr=self.spec.prepare.lr)
        for batch in _batches(engine, self.spec.prepare.epochs):
            loss = torch.stack([self._rec(place, batch) for place in range(len(self.pairs))]).sum()
            gradients = engine.ranks.mean(torch.autograd.grad(loss, parameters))
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
        optimizer.zero_grad()
        self.paraphrasers.requires_grad_(False)
        self._measure(engine)

    def _rec(self, place: int, batch: Record) -> Tensor:
        features = self._teacher(place, batch)
        difference: Tensor = self._paraphraser(place)(features) - features
        return (difference.abs() if self.spec.prepare.rec == "l1" else difference.square()).mean()

    @torch.no_grad()
    def _measure(self, engine: Engine) -> None:
        """Keep how much of the features' variance the paraphrasers lose.

        Raises:
            RunError: they diverged.
        """
        sums = torch.zeros(2, len(self.pairs), device=engine.device)
        for batch in _batches(engine, 1):
            for place in range(len(self.pairs)):
                features = self._teacher(place, batch)
                restored = self._paraphraser(place)(features)
                sums[0, place] += (restored - features).square().sum()
                sums[1, place] += (features - features.mean(0)).square().sum()
        lost, whole = engine.ranks.mean(list(sums))
        self.rec_rel.copy_(lost / whole)
        self._judge()

    def _judge(self) -> None:
        for (_, tap), lost in zip(self.pairs, self.rec_rel.tolist(), strict=True):
            if not math.isfinite(lost):
                raise RunError(f"the paraphraser of {tap!r} diverged: lower method.prepare.lr")
            if lost > POOR and self.spec.prepare.epochs:
                warnings.warn(
                    f"the paraphraser of {tap!r} loses {lost:.0%} of the variance of the teacher's "
                    f"features; train it longer with method.prepare.epochs",
                    stacklevel=2,
                )

    def losses(self, batch: Record, clock: Clock) -> dict[str, Tensor]:
        """The supervised loss, the factor loss of each pair, and KD where it has a weight."""
        spec = self.spec
        factors = [self._factor_loss(place, batch) for place in range(len(self.pairs))]
        terms = {"factor": torch.stack(factors).sum()}
        if spec.label_weight:
            labels = self.setting.task.loss(batch["student.logits"], batch)
            terms["labels"] = spec.label_weight * labels
        if spec.kd_weight:
            logits = batch["student.logits"], batch["teacher.logits"]
            terms["kd"] = spec.kd_weight * kd_loss(*logits, temperature=spec.temperature)
        return terms

    def _factor_loss(self, place: int, batch: Record) -> Tensor:
        with torch.no_grad():
            theirs = self._paraphraser(place).encode(self._teacher(place, batch))
        ours = self.translators[place](batch[f"student.{self.pairs[place][0]}"])
        ours, theirs = self.adapters[place](ours, theirs)
        if self.spec.p == 2:
            weight = self.spec.weight if self.spec.beta is None else self.spec.beta
            return weight * factor_loss(ours, theirs, p=2, per="sample")
        size = math.sqrt(ours[0].numel())
        weight = self.spec.weight * size if self.spec.beta is None else self.spec.beta
        return weight * factor_loss(ours, theirs)

    def _teacher(self, place: int, batch: Record) -> Tensor:
        return batch[f"teacher.{self.pairs[place][1]}"].detach()

    def _paraphraser(self, place: int) -> Paraphraser:
        return cast(Paraphraser, self.paraphrasers[place])


def _batches(engine: Engine, epochs: int) -> Iterator[Record]:
    """The training's batches of that many epochs, with what the teacher says of them."""
    for step in range(epochs * engine.feed.plan.steps_per_epoch):
        for micro in range(engine.training.accumulate):
            batch = engine.feed.batch(step, micro)
            yield {**batch, **engine.teachers(batch)}


def _shape(features: Tensor) -> Shape:
    return tuple(features.shape[1:])


def _dims(features: Tensor, tap: str) -> Dims:
    """Convolutions over maps and volumes; tokens one by one, as vectors."""
    dims: dict[int, Dims] = {2: 0, 3: 0, 4: 2, 5: 3}
    if features.dim() not in dims:
        raise InputError(
            f"factor transfer takes vectors, tokens, maps or volumes, but the tap {tap!r} has "
            f"shape {tuple(features.shape[1:])}"
        )
    return dims[features.dim()]
