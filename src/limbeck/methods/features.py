"""Terms on features: what is tapped where, and the losses that need an adapter at most."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import BeforeValidator, Field, create_model
from torch import Tensor, nn

from limbeck import functional
from limbeck.data.base import Record
from limbeck.errors import InputError
from limbeck.methods.balance import Balance
from limbeck.methods.base import Clock, Setting
from limbeck.methods.term import TermModule, TermSpec, Weight
from limbeck.methods.terms import loss_options
from limbeck.nn.adapters import Adapter, Kind, Shape
from limbeck.nn.pairs import choose_taps, penultimate

Where = Literal["stages", "middle", "last", "penultimate"]
"""Which pairs `taps: auto` means: of all stages, one of them, or before the classifiers."""

Need = Literal["none", "grid", "channels", "shape"]
"""What must agree between student and teacher; "shape" is the grid and the channels."""


def _read_pairs(value: Any) -> Any:
    """`layer2` stands for that path on both sides, `layer2:stages.1` for (student's, teacher's)."""
    if value == "auto":
        return value
    items = [value] if isinstance(value, str) else value
    return [_read_pair(item) for item in items] if isinstance(items, list) else items


def _read_pair(item: Any) -> Any:
    if not isinstance(item, str):
        return item
    student, _, teacher = item.partition(":")
    return student, teacher or student


Pairs = Annotated[list[tuple[str, str]], Field(min_length=1)]
TapPairs = Annotated[Pairs | Literal["auto"], BeforeValidator(_read_pairs)]
"""Pairs of module paths, (student's, teacher's), or "auto"."""


class TapSpec(TermSpec):
    """The configuration of a term on features.

    Attributes:
        taps: pairs of module paths, (student's, teacher's), also written `layer2:stages.1`, or
            `layer2` where both are called so; "auto" chooses them by depth and resolution.
        balance: scale each pair's loss by a running ratio of gradient norms, so that weight 1
            means the same on every pair, see `Balance`.
    """

    taps: TapPairs = "auto"
    balance: bool = False


class AdapterSpec(TapSpec):
    """The configuration of a term that may need an adapter.

    Attributes:
        adapter: how the student's channels are mapped: "auto" (linearly, where they differ),
            "linear", "mlp", or "none".
    """

    adapter: Kind = "auto"


def by(shape: Shape) -> str:
    """A shape in words."""
    return " x ".join(map(str, shape))


class TapTerm(TermModule):
    """A term on pairs of features.

    Attributes:
        where: which pairs "auto" means.
        single: whether it reads one pair only.
        pairs: module paths, (student's, teacher's).
        shapes: of the features of each pair, for one sample.
    """

    Spec: ClassVar[type[TapSpec]] = TapSpec
    where: ClassVar[Where] = "stages"
    single: ClassVar[bool] = False
    spec: TapSpec

    def __init__(self, spec: TapSpec, setting: Setting) -> None:
        super().__init__(spec, setting)
        one_teacher(setting, spec.name)
        self.pairs = chosen_pairs(spec.taps, setting, self.where)
        if self.single:
            one_pair(self.pairs, spec.name)
        self.student_taps = tuple(dict.fromkeys(student for student, _ in self.pairs))
        self.teacher_taps = tuple(dict.fromkeys(teacher for _, teacher in self.pairs))
        seen = setting.observe(self.student_taps, self.teacher_taps)
        self.shapes = [(_shape(s), _shape(t)) for s, t in self.tapped(seen)]
        count = len(self.pairs) if type(self).pair_losses is TapTerm.pair_losses else 1
        self.balance = Balance(count) if spec.balance else None

    def describe(self) -> list[str]:
        """Each pair of taps, with the shapes of one sample."""
        pairs = zip(self.pairs, self.shapes, strict=True)
        return [
            f"{self.spec.name}: student {ours} ({by(shape)}) follows teacher {theirs} ({by(goal)})"
            for (ours, theirs), (shape, goal) in pairs
        ]

    def tapped(self, batch: Record) -> list[tuple[Tensor, Tensor]]:
        """The features of each pair, the teacher's detached."""
        return [
            (self.read(batch, f"student.{s}"), self.read(batch, f"teacher.{t}").detach())
            for s, t in self.pairs
        ]

    def map_adapters(self, *, grid: bool) -> list[Adapter]:
        """For each pair what makes maps of its features, on one grid or each on its own."""
        return [Adapter(*pair, grid=grid, channels=False, maps=True) for pair in self.shapes]

    def pair_loss(self, place: int, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss of pair number `place`, a scalar."""
        raise NotImplementedError

    def pair_losses(
        self, features: Sequence[tuple[Tensor, Tensor]], batch: Record, clock: Clock
    ) -> list[Tensor]:
        """The loss of each pair; overridden where all pairs make one loss."""
        return [self.pair_loss(place, *pair) for place, pair in enumerate(features)]

    def forward(self, batch: Record, clock: Clock) -> Tensor:  # noqa: D102
        losses = self.pair_losses(self.tapped(batch), batch, clock)
        if self.balance is not None:
            # The whole tensors, of which a term that reads labels has taken the labelled rows.
            features = [batch[f"student.{path}"] for path, _ in self.pairs]
            owned = [features] if len(losses) == 1 else [[feature] for feature in features]
            labels = self.setting.task.loss(batch["student.logits"], batch)
            losses = self.balance(losses, owned, labels)
        return functools.reduce(torch.add, losses)


def one_teacher(setting: Setting, name: str) -> None:
    """Refuses a run without a teacher, and several, whose features would be as many losses."""
    if setting.teachers != 1:
        raise InputError(
            f"the method {name!r} needs exactly one teacher, with whose features it compares the "
            f"student's, and there are {setting.teachers}: give it with --teacher MODEL"
        )


def one_pair(pairs: Sequence[tuple[str, str]], name: str) -> None:
    """Refuses several pairs, of which a loss would read the first alone."""
    if len(pairs) > 1:
        raise InputError(f"the method {name!r} reads one pair of taps, got {len(pairs)}")


def chosen_pairs(
    taps: list[tuple[str, str]] | Literal["auto"], setting: Setting, where: Where
) -> list[tuple[str, str]]:
    """The pairs that the user named, or those that `where` means for these two networks."""
    if taps != "auto":
        return list(taps)
    student, teacher = setting.student_paths, setting.teacher_paths
    if where == "penultimate":
        return [(penultimate(student, "student"), penultimate(teacher, "teacher"))]
    pairs = choose_taps(student, teacher)
    return {"stages": pairs, "middle": pairs[len(pairs) // 2 :][:1], "last": pairs[-1:]}[where]


def _shape(features: Tensor) -> Shape:
    return tuple(features.shape[1:])


class FeatureTerm(TapTerm):
    """A loss of `limbeck.functional` on each pair, behind an adapter where shapes differ.

    Attributes:
        function: the loss's name in `limbeck.functional`.
        adapt: what must agree between both sides.
    """

    function: ClassVar[str]
    adapt: ClassVar[Need]

    def __init__(self, spec: TapSpec, setting: Setting) -> None:
        super().__init__(spec, setting)
        options = {name: getattr(spec, name) for name in loss_options(self.function)}
        self.loss = functools.partial(getattr(functional, self.function), **options)
        self.adapters = nn.ModuleList(
            make_adapter(spec, *shapes, self.adapt) for shapes in self.shapes
        )
        self._try()

    def map_adapters(self, *, grid: bool) -> list[Adapter]:
        """For each pair what makes maps of its features, on one grid or each on its own."""
        return [Adapter(*pair, grid=grid, channels=False, maps=True) for pair in self.shapes]

    def pair_loss(self, place: int, student: Tensor, teacher: Tensor) -> Tensor:  # noqa: D102
        loss: Tensor = self.loss(*self.adapters[place](student, teacher))
        return loss

    @torch.no_grad()
    def _try(self) -> None:
        """What the loss cannot read is refused before training."""
        for place, (student, teacher) in enumerate(self.shapes):
            self.pair_loss(place, torch.ones(2, *student), torch.ones(2, *teacher))


def make_adapter(spec: TapSpec, student: Shape, teacher: Shape, need: Need) -> nn.Module:
    """The adapter of one pair; relations between samples need none."""
    if need == "none":
        return AsTheyAre()
    kind = spec.adapter if isinstance(spec, AdapterSpec) else "auto"
    grid, channels = need in ("grid", "shape"), need in ("channels", "shape")
    return Adapter(student, teacher, grid=grid, channels=channels, kind=kind)


class AsTheyAre(nn.Module):
    """No adapter: both sides as they are."""

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        return student, teacher


def _term(
    name: str, where: Where, adapt: Need, weight: float, *, coupled: bool = False
) -> type[FeatureTerm]:
    """The class of the feature loss called `name`, with a spec that holds the loss's options."""
    function = f"{name}_loss"
    fields: dict[str, Any] = {"name": (Literal[name], name), "weight": (Weight, weight)}
    fields |= loss_options(function)
    base = AdapterSpec if adapt in ("channels", "shape") else TapSpec
    title = name.title().replace("_", "")
    spec = create_model(f"{title}Spec", __base__=base, **fields)
    content = {
        "__doc__": f"`{function}` on features.",
        "Spec": spec,
        "where": where,
        "adapt": adapt,
        "function": function,
        "coupled": coupled,
    }
    return type(title, (FeatureTerm,), content)


# Weights are those of HobbitLong/RepDistiller@b84f547 (README), where it has the loss; those of
# ICKD, CWD, PKD and SRD are their authors'.
Fitnet = _term("fitnet", "middle", "shape", 100.0)
At = _term("at", "stages", "grid", 1000.0)
Sp = _term("sp", "last", "none", 3000.0, coupled=True)
Cc = _term("cc", "penultimate", "none", 0.02, coupled=True)
Rkd = _term("rkd", "penultimate", "none", 1.0, coupled=True)
Pkt = _term("pkt", "penultimate", "none", 30000.0, coupled=True)
Nst = _term("nst", "stages", "grid", 50.0)
Ickd = _term("ickd", "last", "channels", 2.5)
Cwd = _term("cwd", "last", "shape", 3.0)
Pkd = _term("pkd", "last", "shape", 6.0, coupled=True)
Srd = _term("srd", "penultimate", "shape", 2.0, coupled=True)
CosineSmoothL1 = _term("cosine_smooth_l1", "last", "shape", 1.0)
