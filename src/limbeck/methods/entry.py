"""What the registry knows of a method. Torch is not imported here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A method: where its class is, and what `limbeck methods` says of it.

    Attributes:
        summary: one line.
        paper: its source.
        needs: what it needs besides the student.
        target: `module:Class` of a `Method`, or of a `TermModule`.
    """

    summary: str
    paper: str
    needs: str
    target: str = ""


@dataclass(frozen=True)
class LossEntry(Entry):
    """A method that is one term beside the supervised loss.

    Attributes:
        function: name in `limbeck.functional`, or `module:function` of another package; empty
            for the supervised loss alone.
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
