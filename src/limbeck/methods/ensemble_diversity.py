"""One student of several members, each with a teacher, on inputs where the teachers disagree."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from limbeck.data.base import Record
from limbeck.errors import InputError
from limbeck.functional import diversify, kd_loss, output_spread, pairwise_kl
from limbeck.methods.base import Clock, Method, MethodSpec, Setting, several_teachers
from limbeck.recipe.spec import Share
from limbeck.students.batch_ensemble import BatchEnsemble, batch_ensemble

if TYPE_CHECKING:
    from limbeck.engine.engine import Engine
    from limbeck.teachers.live import LiveTeacher

_log = logging.getLogger("limbeck")

STUCK = 0.05
"""Share of samples without a direction from which on the user is warned."""

Positive = Annotated[float, Field(gt=0)]


class EnsembleDiversitySpec(MethodSpec):
    """An ensemble's diversity for one student.

    Attributes:
        perturb: how inputs move before the teachers speak: "conf_ods", "ods", "gaussian", or
            "none", which needs no live teacher.
        step: η, root mean square of the move in units: for images grey levels of 255.
        step_end: its value at the end of the training, reached linearly; none: constant.
        step_unit: "range", 1/255 of images in [0, 1], or "std", of a batch's elements.
        share: a, of the teachers in the loss; the labels have the rest.
        temperature: T of the soft labels.
        temperature_end: its value at the end of the training; none: constant.
        perturb_temperature: of the teacher that moves the inputs; none: T.
        members: of a student that is a plain network; none: one for each teacher.
        pairing: "cycle": member m always learns from the same teacher; "random": in each step from
            another one.
        init_std: how far apart a plain network's members start.
        norm: "shared" batch normalization, or "per_member".
        merge: start the members of a plain network as one, and pull them together.
        pull: weight of that pull.
    """

    name: Literal["ensemble_diversity"] = "ensemble_diversity"
    perturb: Literal["conf_ods", "ods", "gaussian", "none"] = "conf_ods"
    step: Positive = 1.0
    step_end: Positive | None = None
    step_unit: Literal["range", "std"] = "range"
    share: Share = 0.9
    temperature: Positive = 1.0
    temperature_end: Positive | None = None
    perturb_temperature: Positive | None = None
    members: Annotated[int, Field(ge=2)] | None = None
    pairing: Literal["cycle", "random"] = "cycle"
    init_std: Annotated[float, Field(ge=0)] = 0.5
    norm: Literal["shared", "per_member"] = "shared"
    merge: bool = False
    pull: Annotated[float, Field(ge=0)] = 5e-4


class EnsembleDiversity(Method):
    """Diversity Matters When Learning From Ensembles (Nam et al., NeurIPS 2021, arXiv:2110.14149).

    Every member of a batch ensemble follows a teacher of its own: on inputs that one of the
    teachers, drawn for each batch, moves to where the teachers' outputs spread. The labels are
    learned from the inputs as they are. What is delivered gives the logits of the members' mean
    probabilities; `student.member(m)` is one member as a plain network.

    Batch normalization sees the clean and the moved inputs in turn, as published.

    Reference code: cs-giung/giung2@c8560fd:projects/Diversity-Matters.
    """

    Spec: ClassVar[type[MethodSpec]] = EnsembleDiversitySpec
    student: BatchEnsemble
    student_taps = ("network",)

    def __init__(self, student: nn.Module, setting: Setting, spec: EnsembleDiversitySpec) -> None:
        several_teachers(setting, spec.name)
        if spec.perturb != "none" and not setting.live:
            raise InputError(
                f"{spec.perturb} needs the teachers themselves, which stored outputs are not: "
                f"give model files, or set method.perturb: none"
            )
        super().__init__(_members(student, setting, spec), setting)
        self.spec = spec
        self.raw = self.online = spec.perturb != "none"
        _check_pairs(len(self.student), setting.teachers, spec.pairing)
        _check_inputs(setting.observe((), ()), spec)

    def describe(self) -> list[str]:
        """Who follows whom."""
        members, teachers = len(self.student), self.setting.teachers
        lines = [f"ensemble_diversity: {members} members, {teachers} teachers"]
        if members > teachers and self.spec.pairing == "cycle":
            lines.append(f"each teacher has {members // teachers} members that follow it")
        return lines

    def prepare(self, engine: Engine) -> None:
        """Say, from the first batch, how much the teachers disagree, and who gives no direction."""
        if not self.online:
            return
        x = _floats(engine.feed.batch(0)["x"])
        for place, teacher in enumerate(engine.teachers.members):
            _, stuck = self._moved(x, engine, place)
            if stuck > STUCK and engine.ranks.first:
                _log.warning(
                    "teacher %d (%s) gives no direction for %.0f%% of the samples, where it is "
                    "certain; a method.perturb_temperature of 2 to 4 helps",
                    *(place, teacher.name, 100 * float(stuck)),
                )
        moved, _ = self._moved(x, engine, 0)
        facts = {"clean": self._disagreement(x, engine), "moved": self._disagreement(moved, engine)}
        engine.event("disagreement", **facts)

    def _disagreement(self, x: Tensor, engine: Engine) -> float:
        """The teachers' mean KL on inputs: only where it is large can members learn to differ."""
        return float(pairwise_kl(self._teachers({"x": x}, engine).softmax(-1)))

    def step(self, batch: Record, engine: Engine) -> dict[str, Tensor]:
        """Labels from the inputs as they are, teachers on those that were moved."""
        spec, clock = self.spec, engine.clock
        if self.online:
            batch = {**batch, "x": _floats(batch["x"])}
            clean = self._answers(batch["x"], engine)
            x, stuck = self._moved(batch["x"], engine, None)
            engine.record("stuck", stuck)
            ours, theirs = self._answers(x, engine), self._teachers({**batch, "x": x}, engine)
        else:
            clean = ours = self.student.grouped(batch["student.network"])
            theirs = torch.stack(
                [batch[f"teacher.{place}.logits"] for place in range(self.setting.teachers)]
            )
        temperature = _now(spec.temperature, spec.temperature_end, clock)
        paired = theirs[self._pairs(engine)]
        soft = kd_loss(ours.flatten(0, 1), paired.flatten(0, 1), temperature=temperature)
        terms = {"members": spec.share * soft}
        if spec.share < 1:
            labels = torch.stack([self.setting.task.loss(part, batch) for part in clean])
            terms["labels"] = (1 - spec.share) * labels.mean()
        if self.student.mergeable and spec.pull:
            terms["pull"] = spec.pull * self.student.pull()
        return self.descend(terms, engine)

    def _answers(self, x: Tensor, engine: Engine) -> Tensor:
        """The members' logits (M, B, K)."""
        return self.student.grouped(engine.forward(x)["network"])

    def _teachers(self, batch: Record, engine: Engine) -> Tensor:
        """The teachers' logits (teachers, B, K)."""
        return torch.stack([teacher(batch)["logits"] for teacher in engine.teachers.members])

    def _pairs(self, engine: Engine) -> Tensor:
        """The teacher of each member."""
        count, members = self.setting.teachers, len(self.student)
        if self.spec.pairing == "cycle":
            return torch.arange(members, device=engine.device) % count
        draws = engine.generator("pairs")
        rounds = [
            torch.randperm(count, generator=draws, device=engine.device)
            for _ in range(-(-members // count))
        ]
        return torch.cat(rounds)[:members]

    def _moved(self, x: Tensor, engine: Engine, teacher: int | None) -> tuple[Tensor, Tensor]:
        """The inputs after one step, and the share of samples that have no direction."""
        spec = self.spec
        image = spec.step_unit == "range"
        unit = 1 / 255 if image else float(x.std())
        step = _now(spec.step, spec.step_end, engine.clock)
        draws = engine.generator("perturbation")
        if spec.perturb == "gaussian":
            noise = torch.randn(x.shape, generator=draws, device=x.device)
            moved = x + step * unit * noise
            return moved.clamp(0, 1) if image else moved, x.new_zeros(())
        if teacher is None:
            count = self.setting.teachers
            teacher = int(torch.randint(count, (1,), generator=draws, device=x.device))
        logits = cast("LiveTeacher", engine.teachers.members[teacher]).logits
        shape = (len(x), self.setting.classes)
        weights = 2 * torch.rand(shape, generator=draws, device=x.device) - 1
        spread = output_spread(
            logits, x, weights, temperature=spec.perturb_temperature or spec.temperature
        )
        moved = diversify(
            x,
            spread,
            step=step,
            confident=spec.perturb == "conf_ods",
            unit=unit,
            bounds=(0.0, 1.0) if image else None,
        )
        return moved, spread.flat.float().mean()


def _members(student: nn.Module, setting: Setting, spec: EnsembleDiversitySpec) -> BatchEnsemble:
    """The student itself, where it has members; else as many copies of it that share weights."""
    if isinstance(student, BatchEnsemble):
        if spec.members not in (None, len(student)):
            raise InputError(
                f"the student has {len(student)} members, and method.members asks for "
                f"{spec.members}: leave it out"
            )
        return student
    return batch_ensemble(
        student,
        spec.members or setting.teachers,
        init_std=spec.init_std,
        norm=spec.norm,
        merge=spec.merge,
        seed=setting.seed,
    )


def _check_pairs(members: int, teachers: int, pairing: str) -> None:
    if pairing == "cycle" and members % teachers:
        raise InputError(
            f"{members} members cannot share {teachers} teachers evenly: take a multiple of "
            f"{teachers} with method.members, or method.pairing: random"
        )


def _check_inputs(seen: Record, spec: EnsembleDiversitySpec) -> None:
    """Refuses inputs that cannot be moved, and teachers that do not know every class."""
    x = seen["x"]
    if spec.perturb != "none":
        if not x.is_floating_point() and x.dtype != torch.uint8:
            raise InputError(
                f"inputs of type {str(x.dtype).removeprefix('torch.')} cannot be moved by small "
                f"steps: set method.perturb: none"
            )
        image = x.dim() == 4 and bool(x.dtype == torch.uint8 or (x.min() >= 0 and x.max() <= 1))
        if spec.step_unit == "range" and not image:
            raise InputError(
                f"method.step counts grey levels of images in [0, 1], and samples of shape "
                f"{tuple(x.shape[1:])} are none: set method.step_unit: std"
            )
    for key, logits in seen.items():
        if (
            key.startswith("teacher.")
            and key.endswith("logits")
            and bool((logits == -torch.inf).any())
        ):
            raise InputError(
                f"{key.removesuffix('.logits')} does not know every class, which each member is to "
                f"learn: use method adaptive_ensemble"
            )


def _floats(x: Tensor) -> Tensor:
    return x.float() / 255 if x.dtype == torch.uint8 else x


def _now(start: float, end: float | None, clock: Clock) -> float:
    """A value that goes from `start` to `end` over the training."""
    return start if end is None else start + (end - start) * clock.progress
