"""SLaM: the student's prediction is mixed with the noise that the teacher is known to make."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from limbeck.data.base import Record
from limbeck.errors import InputError
from limbeck.functional import calibrate_noise, slam_loss
from limbeck.functional.noise import Curve, NoiseModel
from limbeck.functional.slam import Tail
from limbeck.methods.base import Setting
from limbeck.methods.pool import Evidence, PoolSpec, PoolTerm
from limbeck.methods.term import TermSpec

if TYPE_CHECKING:
    from limbeck.engine.engine import Engine

SILENCED = 0.6
"""Mean α of the samples given one class below which plain mixing makes the student forget it."""


class SlamSpec(PoolSpec):
    """SLaM (Kontonis et al., NeurIPS 2023), with the mixing that its experiments used.

    Attributes:
        curve: how α depends on the teacher's margin; `auto` is isotonic for hard labels from 300
            validation samples on, logistic below, and one number for soft labels, which carry the
            teacher's doubt already.
        normalize: the paper's definition, for teachers that are wrong more often than right.
        mask: how many of the teacher's likeliest classes are mixed: `all`, a number, or `sample`
            for as many as hold the truth with the wanted coverage.
        coverage: of `mask: sample`.
        tail: what becomes of a soft label outside the mask: `keep` or `drop`.
        lower: smallest α; None takes 1/2, or 1/k with `normalize`.
        temperature: of student and soft label.
    """

    name: Literal["slam"] = "slam"
    curve: Curve = "auto"
    normalize: bool = False
    mask: Annotated[int, Field(ge=2)] | Literal["all", "sample"] = "all"
    coverage: Annotated[float, Field(gt=0, le=1)] = 0.9
    tail: Tail = "keep"
    lower: Annotated[float, Field(gt=0, lt=1)] | None = None
    temperature: Annotated[float, Field(gt=0)] = 1.0

    @model_validator(mode="after")
    def _plain_needs_half(self) -> SlamSpec:
        if self.lower is not None and self.lower < 0.5 and not self.normalize:
            raise ValueError(
                "lower: below 0.5 plain mixing pushes away from the teacher's label; take "
                "normalize: true"
            )
        return self


class Slam(PoolTerm):
    """Cross-entropy of pseudo-labels and mixed predictions; α and k of every pool sample."""

    Spec: ClassVar[type[TermSpec]] = SlamSpec
    spec: SlamSpec
    alpha: Tensor
    k: Tensor

    def __init__(self, spec: SlamSpec, setting: Setting) -> None:
        super().__init__(spec, setting)
        if isinstance(spec.mask, int) and spec.mask > setting.classes:
            raise InputError(f"method.mask is {spec.mask}, but there are {setting.classes} classes")
        self.register_buffer("alpha", torch.ones(len(self.rows)))
        self.register_buffer("k", torch.full((len(self.rows),), setting.classes))

    def calibrate(self, evidence: Evidence, engine: Engine) -> None:
        """Fit α and k on the validation samples, and look them up for the pool."""
        if evidence.flawless:
            return
        if evidence.accuracy <= 0.5 and not self.spec.normalize:
            raise InputError(
                f"the teacher is right on {evidence.accuracy:.1%} of the validation samples, not "
                f"above 1/2, and plain mixing would ignore every pseudo-label; use "
                f"--method.normalize true, which works down to 1/k"
            )
        model = self._fit(evidence, self._curve())
        alpha = model.alpha(evidence.pool)
        if silenced := self._silenced(alpha, evidence.pool):
            words = ", ".join(f"{c} ({value:.2f})" for c, value in silenced.items())
            fixed = self.spec.curve == "auto" and model.curve != "constant"
            warnings.warn(
                f"slam: the teacher's estimated accuracy is below {SILENCED} on all that it calls "
                f"class {words}, which the student would forget; "
                + ("one α is used for all samples" if fixed else "give more labels of it"),
                stacklevel=2,
            )
            if fixed:
                model = self._fit(evidence, "constant")
                alpha = model.alpha(evidence.pool)
        self.alpha.copy_(alpha)
        self.k.copy_(self._counts(model, evidence.pool))
        self._show(model, engine)

    def _curve(self) -> Curve:
        return "constant" if self.spec.curve == "auto" and not self.spec.hard else self.spec.curve

    def _fit(self, evidence: Evidence, curve: Curve) -> NoiseModel:
        most = self.spec.mask if isinstance(self.spec.mask, int) else self.setting.classes
        lowest = 1 / most if self.spec.normalize else 0.5
        return calibrate_noise(
            evidence.teacher,
            evidence.y,
            curve=curve,
            lower=self.spec.lower or lowest,
            coverage=self.spec.coverage,
            sample_weight=evidence.sample_weight,
        )

    def _silenced(self, alpha: Tensor, pool: Tensor) -> dict[int, float]:
        """Mean α of the classes that plain mixing would silence, by class."""
        if self.spec.normalize:
            return {}
        guess = pool.argmax(1)
        count = torch.bincount(guess, minlength=pool.shape[1])
        mean = torch.bincount(guess, alpha.double(), minlength=pool.shape[1]) / count
        return {c: mean[c].item() for c in (mean < SILENCED).nonzero().flatten().tolist()}

    def _counts(self, model: NoiseModel, pool: Tensor) -> Tensor:
        if self.spec.mask == "sample":
            return model.k(pool)
        most = self.setting.classes if self.spec.mask == "all" else self.spec.mask
        return torch.full((len(pool),), most)

    def _show(self, model: NoiseModel, engine: Engine) -> None:
        """The curve of α, and how often the truth is among the k likeliest, for the report."""
        x, y = model.by_margin.x.tolist(), model.by_margin.y.tolist()
        if len(x) == 1:
            x, y = [0.0, 1.0], 2 * y
        names = {"xlabel": "teacher's margin", "ylabel": "estimated accuracy α"}
        engine.event("curve", name="Accuracy of the teacher by margin", x=x, y=y, **names)
        counts = torch.bincount(self.k.cpu(), minlength=self.setting.classes + 1)[2:]
        if self.spec.mask == "sample":
            edges = [number + 1.5 for number in range(len(counts) + 1)]
            axes = {"xlabel": "k: classes that hold the truth", "ylabel": "pool samples"}
            name = "Classes among which the truth is"
            engine.event("histogram", name=name, x=edges, y=counts.tolist(), **axes)

    def values(self, pool: Record, rows: Tensor) -> Tensor:  # noqa: D102
        return slam_loss(
            pool["student.logits"],
            pool["teacher.logits"].float().softmax(1),
            alpha=self.alpha[rows],
            k=None if self.spec.mask == "all" else self.k[rows],
            hard=self.spec.hard,
            normalize=self.spec.normalize,
            tail=self.spec.tail,
            temperature=self.spec.temperature,
            reduction="none",
        )
