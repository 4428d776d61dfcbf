"""Live teachers: a frozen model with its own input adapter and class order."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.data.base import Record, Split
from limbeck.data.collect import collect
from limbeck.errors import InputError
from limbeck.nn.forward import Forward
from limbeck.nn.input import InputAdapter
from limbeck.nn.taps import Taps, tap_shapes
from limbeck.teachers.fast import Swap, chunk_rows, fold, unfold

FAST = ("fold", "channels_last", "chunks")
"""What is done by itself: exact up to the order of float additions."""


def class_order(
    given: Sequence[str | int], classes: Sequence[str], name: str, *, partial: bool = False
) -> list[int]:
    """For each of the data's classes, the column of the teacher's logits that stands for it.

    Args:
        given: what each output of the teacher stands for, by class name or number.
        classes: the data's class names.
        name: of the teacher, for the message.
        partial: give -1 for a class that no output stands for, where some have one.

    Raises:
        InputError: a class that no output stands for.
    """
    wanted = {name: number for number, name in enumerate(classes)}
    columns: dict[int, int] = {}
    for column, label in enumerate(given):
        number = wanted.get(str(label), label if isinstance(label, int) else None)
        if isinstance(number, int):
            columns[number] = column
    missing = [classes[number] for number in range(len(classes)) if number not in columns]
    if missing and not (partial and columns):
        raise InputError(
            f"the teacher {name!r} has no output for class(es) {', '.join(missing[:5])}; its "
            f"'classes' must name every class of the data: {', '.join(classes[:10])}"
        )
    return [columns.get(number, -1) for number in range(len(classes))]


class LiveTeacher:
    """A frozen model that is run on every batch, in evaluation and inference mode.

    Args:
        model: any module; it is set to evaluation mode, its parameters are frozen, and `fast` may
            change its layout: give a copy of one that is used elsewhere.
        adapter: how it wants its inputs.
        taps: module paths that are recorded besides the logits.
        order: columns of its logits in the order of the data's classes, -1 for one that it does
            not know, whose logit is then -inf; None: as they are.
        name: what the user called it.
        fast: ways to be faster: `fold` (frozen batch norms into convolutions), `channels_last`,
            `chunks` (on the CPU: as many samples at a time as stay in its cache), `bf16`
            (autocast), `compile`.
    """

    live = True

    def __init__(
        self,
        model: nn.Module,
        adapter: InputAdapter | None = None,
        taps: Sequence[str] = (),
        order: Sequence[int] | None = None,
        name: str = "teacher",
        fast: Sequence[str] = FAST,
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.fast = tuple(fast)
        self._swaps: list[Swap] | None = None
        self._rows: int | None = None
        self.adapter = adapter or InputAdapter()
        self.forward = Forward(self.model, self.adapter, taps, owner="teacher")
        self.order = None if order is None else torch.tensor(list(order))
        self.unknown = tuple(place for place, column in enumerate(order or ()) if column < 0)
        self.name = name
        self.taps: Sequence[str] = tuple(taps)
        self._own_taps = self.taps

    def tap(self, paths: Sequence[str]) -> None:
        """Record these module paths too, besides those that the user named."""
        self._slow_down()
        self.forward.taps.remove()
        self.taps = tuple(dict.fromkeys([*self._own_taps, *paths]))
        self.forward.taps = Taps(self.model, self.taps, owner="teacher")

    def modules(self) -> list[nn.Module]:
        """The model and its adapter."""
        return [self.model, self.adapter]

    def module(self, path: str) -> nn.Module:
        """The part of the model at `path`."""
        return self.model.get_submodule(path)

    def survey(self, batch: Record) -> dict[str, tuple[int, ...]]:
        """Every module path with the shape of its output for one sample."""
        return tap_shapes(self.model, self.adapter(batch["x"]))

    def outputs(self, split: Split) -> Tensor:
        """Logits of the clean samples of a whole split, on the CPU."""
        return collect(lambda batch: self(batch)["logits"], split)

    def __call__(self, batch: Record) -> Record:
        """The teacher's record; plain tensors, so that a loss may save them for its backward."""
        x = batch["x"]
        self._hurry(x)
        with torch.inference_mode(), self._precision(x.device.type):
            parts = [self.forward(part) for part in torch.split(x, self._rows or len(x))]
        if len(parts) == 1:
            outside = {key: value.clone() for key, value in parts[0].items()}
        else:
            # Concatenated outside of inference mode, they are plain too.
            outside = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
        if self.order is not None:
            outside["logits"] = self._reorder(outside["logits"])
        return outside

    def logits(self, x: Tensor) -> Tensor:
        """Logits for samples `x`, through which a gradient flows back to them."""
        self._hurry(x)
        logits = self.forward(x)["logits"]
        return logits if self.order is None else self._reorder(logits)

    @torch.no_grad()
    def _hurry(self, x: Tensor) -> None:
        """Make the model faster; done when the first batch comes, on its device."""
        if self._swaps is not None:
            return
        few = self.adapter(x[:2])
        convolves = any(isinstance(part, nn.Conv2d) for part in self.model.modules())
        folds = convolves and "fold" in self.fast
        self._swaps = fold(self.model, few, spare=self.taps) if folds else []
        if convolves and "channels_last" in self.fast:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if "chunks" in self.fast and x.device.type == "cpu":
            self._rows = chunk_rows(self.model, few)
        if "compile" in self.fast:
            self.forward.model = torch.compile(self.model)  # type: ignore[assignment]

    def _precision(self, kind: str) -> AbstractContextManager[Any]:
        return torch.autocast(kind, torch.bfloat16) if "bf16" in self.fast else nullcontext()

    def _slow_down(self) -> None:
        """Give the model its own modules back; the next batch makes it fast again."""
        unfold(self._swaps or ())
        self._swaps = None
        self.forward.model = self.model

    def _reorder(self, logits: Tensor) -> Tensor:
        if self.order is not None and self.order.device != logits.device:
            self.order = self.order.to(logits.device)
        chosen = logits[:, self.order]
        return chosen.index_fill(1, self._lost(), -torch.inf) if self.unknown else chosen

    def _lost(self) -> Tensor:
        """The classes that the teacher does not know."""
        device = None if self.order is None else self.order.device
        return torch.tensor(self.unknown, device=device)
