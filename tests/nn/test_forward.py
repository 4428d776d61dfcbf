"""What a model returned, read as a record."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from limbeck.errors import InputError
from limbeck.nn.forward import Forward, as_record
from limbeck.nn.input import InputAdapter

LOGITS = torch.arange(6.0).view(2, 3)


@dataclass
class Output:
    logits: Any


@pytest.mark.parametrize(
    "output",
    [
        LOGITS,
        (LOGITS, torch.ones(2)),
        [LOGITS],
        {"logits": LOGITS, "loss": None},
        OrderedDict(logits=LOGITS),
        Output(LOGITS),
    ],
)
def test_every_shape_of_answer_has_its_logits(output: Any) -> None:
    assert torch.equal(as_record(output)["logits"], LOGITS)


def test_mappings_keep_their_tensors_by_name() -> None:
    record = as_record({"logits": LOGITS, "features": torch.ones(2, 4), "note": "x"})
    assert record.keys() == {"logits", "features"}


@pytest.mark.parametrize("output", [None, "x", (), (1.0,), {"scores": LOGITS}, Output(None)])
def test_an_answer_without_logits_is_refused(output: Any) -> None:
    with pytest.raises(InputError, match=f"this one returned {type(output).__name__}"):
        as_record(output)


def test_a_model_is_called_through_its_adapter_and_taps() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Identity()

        def forward(self, x: Tensor) -> tuple[Tensor, str]:
            return self.body(x).mean((2, 3)), "more"

    forward = Forward(Model(), InputAdapter((0.5,) * 3, (0.25,) * 3), ["body"])
    x = torch.rand(2, 3, 4, 4)
    record = forward(x)
    torch.testing.assert_close(record["body"], (x - 0.5) * 4)
    torch.testing.assert_close(record["logits"], record["body"].mean((2, 3)))
