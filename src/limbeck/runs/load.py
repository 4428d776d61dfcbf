"""Getting a student back from the folder that it was delivered to."""

from __future__ import annotations

import copy
from pathlib import Path

from torch import nn

from limbeck.models.card import read_card
from limbeck.models.source import load_run
from limbeck.models.weights import apply_weights, load_weights


def load(path: str | Path, *, model: nn.Module | None = None) -> nn.Module:
    """The student of a run or an export, in evaluation mode, on the CPU.

    Args:
        path: the folder, or its `card.json`.
        model: a module of the same architecture, for a student that was built in Python; it
            is copied. Names in the card are never imported as code.

    Raises:
        InputError: no card there, weights that do not fit, or a student that only `model` can
            rebuild.
    """
    if model is None:
        return load_run(path).eval()
    student = copy.deepcopy(model)
    weights = read_card(path).folder / "student.safetensors"
    apply_weights(student, load_weights(str(weights)), str(weights))
    return student.eval()
