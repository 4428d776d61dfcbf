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
from limbeck.methods.base import Clock, Setting, TapPair
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
    """

    taps: TapPairs = "auto"


class AdapterSpec(TapSpec):
    """The configuration of a term that may need an adapter.

    Attributes:
        adapter: how the student's channels are mapped: "auto" (linearly, where they differ), "norm"
            (so, and batch-normalized), "linear", "mlp", or "none".
    """

    adapter: Kind = "auto"


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
        if spec.balance and type(self).pair_losses is TapTerm.pair_losses:
            self.balance = Balance(len(self.pairs))

    def describe(self) -> list[TapPair]:
        """Each pair of taps, with the shapes of one sample."""
        return tap_pairs(self.spec.name, self.pairs, self.shapes)

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
        return functools.reduce(torch.add, self.pair_losses(self.tapped(batch), batch, clock))

    def parts(self, batch: Record, clock: Clock) -> list[tuple[Tensor, list[Tensor]]]:
        """Each pair's loss, or the one loss of all."""
        losses = self.pair_losses(self.tapped(batch), batch, clock)
        # The whole tensors, of which a term that reads labels has taken the labelled rows.
        features = [batch[f"student.{path}"] for path, _ in self.pairs]
        owned = [features] if len(losses) == 1 else [[feature] for feature in features]
        return list(zip(losses, owned, strict=True))


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


def tap_pairs(
    term: str, pairs: Sequence[tuple[str, str]], shapes: Sequence[tuple[Shape, Shape]]
) -> list[TapPair]:
    """What `describe` tells of pairs of taps."""
    return [
        TapPair(term, student, ours, teacher, theirs)
        for (student, teacher), (ours, theirs) in zip(pairs, shapes, strict=True)
    ]


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
    name: str, where: Where, adapt: Need, weight: float, *, coupled: bool = False, **defaults: Any
) -> type[FeatureTerm]:
    """The class of the feature loss called `name`, with a spec that holds the loss's options."""
    function = f"{name}_loss"
    fields: dict[str, Any] = {"name": (Literal[name], name), "weight": (Weight, weight), **defaults}
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
# ICKD, CWD, PKD and SRD are their authors'. That of FitNets belongs to its normalized regressor:
# behind a plain one, a step of the default learning rate is too long and the student dies.
Fitnet = _term("fitnet", "middle", "shape", 100.0, adapter=(Kind, "norm"))
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
