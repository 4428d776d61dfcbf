"""One model as limbeck calls it: input adapter, model, taps; a plain record comes out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from limbeck.data.base import Record
from limbeck.errors import InputError
from limbeck.nn.input import InputAdapter
from limbeck.nn.taps import Taps


def as_record(output: Any) -> Record:
    """What a model returned, as a record with `logits`.

    A tensor is the logits; of a tuple the first tensor is; mappings and the outputs of
    `transformers` keep their tensors by name and must hold `logits`.

    Raises:
        InputError: nothing in the output can be read as logits.
    """
    if isinstance(output, Tensor):
        return {"logits": output}
    if isinstance(output, Mapping):
        record = {str(key): value for key, value in output.items() if isinstance(value, Tensor)}
        if "logits" in record:
            return record
    elif isinstance(output, tuple | list) and output and isinstance(output[0], Tensor):
        return {"logits": output[0]}
    elif isinstance(getattr(output, "logits", None), Tensor):
        return {"logits": output.logits}
    raise InputError(
        f"a model must return its logits as a tensor, as the first of a tuple, or under the key "
        f"'logits'; this one returned {type(output).__name__}"
    )


class Forward:
    """Calls a model on samples in the data's scale.

    Args:
        model: any module.
        adapter: how the model wants its inputs.
        taps: module paths to read besides the outputs.
        owner: "student" or "teacher", for error messages.
    """

    def __init__(
        self,
        model: nn.Module,
        adapter: InputAdapter,
        taps: Iterable[str] = (),
        owner: str = "student",
    ) -> None:
        self.model = model
        self.adapter = adapter
        self.taps = Taps(model, taps, owner)

    def __call__(self, x: Tensor) -> Record:
        """The record of the outputs for samples `x`: `logits`, and each tap by its path."""
        record = as_record(self.model(self.adapter(x)))
        record.update(self.taps.take())
        return record
