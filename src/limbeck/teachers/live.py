"""Live teachers: a frozen model with its own input adapter and class order."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from limbeck.data.base import Record
from limbeck.errors import InputError
from limbeck.nn.forward import Forward
from limbeck.nn.input import InputAdapter
from limbeck.nn.taps import Taps


def class_order(given: Sequence[str | int], classes: Sequence[str], name: str) -> list[int]:
    """For each of the data's classes, the column of the teacher's logits that stands for it.

    Args:
        given: what each output of the teacher stands for, by class name or number.
        classes: the data's class names.
        name: of the teacher, for the message.

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
    if missing:
        raise InputError(
            f"the teacher {name!r} has no output for class(es) {', '.join(missing[:5])}; its "
            f"'classes' must name every class of the data: {', '.join(classes[:10])}"
        )
    return [columns[number] for number in range(len(classes))]


class LiveTeacher:
    """A frozen model that is run on every batch, in evaluation and inference mode.

    Args:
        model: any module; it is set to evaluation mode and its parameters are frozen.
        adapter: how it wants its inputs.
        taps: module paths that are recorded besides the logits.
        order: columns of its logits in the order of the data's classes, None: as they are.
        name: what the user called it.
    """

    live = True

    def __init__(
        self,
        model: nn.Module,
        adapter: InputAdapter | None = None,
        taps: Sequence[str] = (),
        order: Sequence[int] | None = None,
        name: str = "teacher",
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.adapter = adapter or InputAdapter()
        self.forward = Forward(self.model, self.adapter, taps, owner="teacher")
        self.order = None if order is None else torch.tensor(list(order))
        self.name = name
        self.taps: Sequence[str] = tuple(taps)
        self._own_taps = self.taps

    def tap(self, paths: Sequence[str]) -> None:
        """Record these module paths too, besides those that the user named."""
        self.forward.taps.remove()
        self.taps = tuple(dict.fromkeys([*self._own_taps, *paths]))
        self.forward.taps = Taps(self.model, self.taps, owner="teacher")

    def modules(self) -> list[nn.Module]:
        """The model and its adapter."""
        return [self.model, self.adapter]

    def __call__(self, batch: Record) -> Record:
        """The teacher's record; plain tensors, so that a loss may save them for its backward."""
        with torch.inference_mode():
            record = self.forward(batch["x"])
        outside = {key: value.clone() for key, value in record.items()}
        if self.order is not None:
            outside["logits"] = self._reorder(outside["logits"])
        return outside

    def _reorder(self, logits: Tensor) -> Tensor:
        if self.order is not None and self.order.device != logits.device:
            self.order = self.order.to(logits.device)
        return logits[:, self.order]
