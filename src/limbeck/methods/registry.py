"""The registry: every method by name, in one line each. Torch is not imported here.

A plain loss is a line with `loss(...)`: the function's name in `limbeck.functional`, what it
reads, and the published weights. A method in a file of its own is a line with `Entry(...)`.
Other packages add methods through the entry-point group `limbeck.methods`, whose values
are `Entry` objects.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from limbeck.errors import InputError, nearest


@dataclass(frozen=True)
class Entry:
    """A method: where its class is, and what `limbeck methods` says of it.

    Attributes:
        summary: one line.
        paper: its source.
        needs: what it needs besides the student.
        target: `module:Class` of a `Method`.
    """

    summary: str
    paper: str
    needs: str
    target: str = ""


@dataclass(frozen=True)
class LossEntry(Entry):
    """A method that is one term beside the supervised loss.

    Attributes:
        function: name in `limbeck.functional`; empty for the supervised loss alone.
        keys: what the function reads from the batch, in its order.
        weight: published weight of the term.
        label_weight: published weight of the supervised loss beside it.
        coupled: whether the loss relates the samples of a batch to one another.
    """

    function: str = ""
    keys: tuple[str, ...] = ()
    weight: float = 1.0
    label_weight: float = 1.0
    coupled: bool = False


LOGITS = ("student.logits", "teacher.logits")
LOGITS_Y = (*LOGITS, "y")

METHODS: dict[str, Entry] = {
    "labels": LossEntry("Supervised loss alone: the arm without a teacher", "", "labels"),
    "kd": LossEntry(
        "Soft labels at a temperature, beside the hard ones",
        "Hinton et al. 2015, arXiv:1503.02531",
        "logits",
        function="kd_loss",
        keys=LOGITS,
        weight=0.9,
        label_weight=0.1,
    ),
}


@cache
def all_methods() -> dict[str, Entry]:
    """The built-in methods and those of installed packages; built-in names win."""
    from importlib.metadata import entry_points

    found = {point.name: point.load() for point in entry_points(group="limbeck.methods")}
    return {**found, **METHODS}


def find_method(name: str) -> Entry:
    """The entry called `name`.

    Raises:
        InputError: no method has that name.
    """
    methods = all_methods()
    if name not in methods:
        raise InputError(
            f"unknown method {name!r}{nearest(name, methods)}; `limbeck methods` lists all: "
            f"{', '.join(methods)}"
        )
    return methods[name]
