"""What methods for a pool share: its rows of a batch, and labels to judge the teacher by."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal, cast

import torch
from torch import Tensor

from limbeck.data.base import Record
from limbeck.errors import InputError
from limbeck.functional.label_shift import LabelShift, effective_size, label_shift
from limbeck.methods.base import Clock, Setting
from limbeck.methods.memory import Rows
from limbeck.methods.term import TermModule, TermSpec

if TYPE_CHECKING:
    from limbeck.engine.engine import Engine

FEWEST, ENOUGH = 100, 300
"""Validation samples below which nothing is estimated, and from which on it is estimated well."""
_SHARED = 0.01
"""Share of the validation samples that may be left out because they were trained on."""


class PoolSpec(TermSpec):
    """The configuration of a term on the pool.

    Attributes:
        hard: the pseudo-label is the teacher's likeliest class, else its probabilities.
    """

    samples: Literal["pool"] = "pool"
    hard: bool = True


@dataclass(frozen=True)
class Evidence:
    """What labelled validation samples and the pool show of a teacher, on the CPU.

    Attributes:
        rows: the validation samples that are used, positions [V].
        y: their true class ids [V].
        teacher: the teacher's probabilities for them [V, C].
        pool: its probabilities for the pool [N, C].
        shift: whether classes are as frequent in both.
    """

    rows: Tensor
    y: Tensor
    teacher: Tensor
    pool: Tensor
    shift: LabelShift

    @cached_property
    def right(self) -> Tensor:
        """Where the teacher is right, bool [V]."""
        return self.teacher.argmax(1) == self.y

    @property
    def accuracy(self) -> float:
        """Of the teacher."""
        return self.right.double().mean().item()

    @property
    def flawless(self) -> bool:
        """Whether the teacher makes no mistake that could be corrected."""
        return bool(self.right.all())

    @property
    def sample_weight(self) -> Tensor | None:
        """Weights that give the validation samples the pool's class frequencies."""
        return self.shift.sample_weight(self.y)


class PoolTerm(TermModule):
    """A summand over the unlabelled rows of a batch; the labelled ones have their labels.

    Attributes:
        judged: whether it needs validation samples, which the teacher has not learned from.
    """

    Spec: ClassVar[type[TermSpec]] = PoolSpec
    judged = True
    spec: PoolSpec

    def __init__(self, spec: PoolSpec, setting: Setting) -> None:
        super().__init__(spec, setting)
        self.rows = Rows(cast(Tensor, setting.pool))  # seen to by the contract of terms
        self._evidence: Evidence | None = None

    def prepare(self, engine: Engine) -> None:
        """Look at the validation samples where they are needed, and set the term up."""
        plan = engine.feed.plan
        if plan.pool < plan.global_batch * plan.pool_ratio:
            raise InputError(
                f"the pool of {plan.pool} sample(s) is smaller than the "
                f"{plan.global_batch * plan.pool_ratio} that a batch takes of it; lower "
                f"training.batch or training.pool_ratio"
            )
        if self.judged:
            self.calibrate(self.evidence(engine), engine)

    def calibrate(self, evidence: Evidence, engine: Engine) -> None:
        """Set the term up; what it leaves in buffers is checkpointed."""

    def evidence(self, engine: Engine) -> Evidence:
        """What the validation samples show, looked at once in a process."""
        if self._evidence is None:
            self._evidence = gather(engine, self.spec.name, self.setting)
        return self._evidence

    def forward(self, batch: Record, clock: Clock) -> Tensor:
        """The mean of `values`."""
        return self.values(batch, self.rows(batch["index"])).mean()

    def values(self, pool: Record, rows: Tensor) -> Tensor:
        """The loss of each unlabelled sample.

        Args:
            pool: the unlabelled rows of a batch.
            rows: where each stands in tables with one row a pool sample.
        """
        raise NotImplementedError


def gather(engine: Engine, name: str, setting: Setting) -> Evidence:
    """Evidence for the method `name`, refused where it would mislead.

    Raises:
        InputError: too few validation samples, a class without any, samples that were trained on,
            a teacher whose outputs are not known, or one that is no better than a constant.
    """
    validation = engine.survey("val", student=False)
    pool = engine.survey("pool", student=False)
    for part, record in (("validation samples", validation), ("pool", pool)):
        if "teacher.logits" not in record:
            raise InputError(
                f"the method {name!r} needs the teacher's outputs for the {part}, which its store "
                f"does not hold; store them too, or give the live teacher"
            )
    rows = _unseen(engine, name)
    y = validation["y"][rows]
    _check(y, name, setting)
    teacher = validation["teacher.logits"][rows].float().softmax(1)
    probs = pool["teacher.logits"].float().softmax(1)
    evidence = Evidence(rows, y, teacher, probs, label_shift(teacher, y, probs))
    _check_teacher(evidence, name)
    _tell_shift(evidence)
    return evidence


def _unseen(engine: Engine, name: str) -> Tensor:
    """Positions of the validation samples that are not among the training samples, by content."""
    ours = engine.clean.content("val")
    seen = torch.isin(ours, engine.clean.content("train"))
    count = int(seen.sum())
    if count > _SHARED * len(ours):
        raise InputError(
            f"{count} of {len(ours)} validation samples are also training samples (the first at "
            f"position {int(seen.nonzero()[0])}); the teacher would seem better than it is to "
            f"{name!r}: give validation samples of their own"
        )
    if count:
        warnings.warn(
            f"{name}: {count} validation sample(s) that are also training samples are left out",
            stacklevel=2,
        )
    return (~seen).nonzero().squeeze(1)


def _check(y: Tensor, name: str, setting: Setting) -> None:
    if len(y) < FEWEST:
        raise InputError(
            f"the validation set has {len(y)} labelled samples; {name!r} needs at least {FEWEST} "
            f"({ENOUGH} for good estimates): hold out more with data.val"
        )
    counts = torch.bincount(y, minlength=setting.classes)
    if missing := (counts == 0).nonzero().flatten().tolist():
        raise InputError(
            f"class(es) {', '.join(map(str, missing[:5]))} never occur in the validation set, so "
            f"{name!r} cannot judge the teacher there; hold out more with data.val"
        )
    if len(y) < ENOUGH:
        warnings.warn(
            f"{name}: with {len(y)} validation samples the teacher's mistakes are estimated "
            f"roughly; {ENOUGH} are better",
            stacklevel=2,
        )


def _check_teacher(evidence: Evidence, name: str) -> None:
    largest = torch.bincount(evidence.y).max().item() / len(evidence.y)
    if evidence.accuracy <= largest:
        raise InputError(
            f"the teacher is right on {evidence.accuracy:.1%} of the validation samples, no more "
            f"often than their most frequent class would be ({largest:.1%}); train without it, "
            f"with --method labels"
        )
    if evidence.flawless:
        warnings.warn(
            f"{name}: the teacher is right on all {len(evidence.y)} validation samples: there is "
            f"nothing to correct, and its pseudo-labels are used as they are",
            stacklevel=2,
        )


def _tell_shift(evidence: Evidence) -> None:
    shift = evidence.shift
    if not shift.found:
        return
    words = f"classes are not as frequent in the pool as in validation (p {shift.p_classes:.1g}); "
    weight = evidence.sample_weight
    if weight is None:
        words += "the teacher confuses them too much to correct for it"
    else:
        words += f"corrected, as {effective_size(weight):.0f} of {len(weight)} samples would do"
    warnings.warn(words, stacklevel=2)
