"""Using a delivered student: metrics on a split, and predictions for new samples."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.data.base import ArraySplit, Data, Record, Split
from limbeck.data.inputs import load_inputs, load_labels
from limbeck.data.load import load_data
from limbeck.engine.checkpoint import load_tensors
from limbeck.engine.evaluate import collect
from limbeck.engine.ranks import choose_device
from limbeck.errors import InputError
from limbeck.models.card import Card, read_card
from limbeck.nn.forward import Forward
from limbeck.nn.input import InputAdapter
from limbeck.recipe import yaml
from limbeck.recipe.folder import read_json
from limbeck.recipe.spec import DataSpec
from limbeck.runs.load import load
from limbeck.tasks.base import Task
from limbeck.tasks.classification import Classification


@dataclass
class Delivered:
    """A student as it was delivered, ready to answer.

    Attributes:
        card: what its folder says of it.
        forward: the student behind its input adapter.
        task: metrics and predictions.
        device: where it runs.
    """

    card: Card
    forward: Forward
    task: Task
    device: torch.device

    def logits(self, split: Split) -> Tensor:
        """The student's logits for every sample of a split."""

        def answer(batch: Record) -> Tensor:
            return self.forward(batch["x"])["logits"]

        return collect(answer, split.to(self.device), self.device)


def delivered(
    path: str | Path, *, model: nn.Module | None = None, device: str = "auto"
) -> Delivered:
    """The student in a run or export folder, with its input adapter.

    Raises:
        InputError: no finished run there, or a student that only `model` can rebuild.
    """
    card = read_card(path)
    where = choose_device(device)
    student = load(path, model=model).to(where)
    known = card.content["input"]
    size = known["size"]
    adapter = InputAdapter(
        None if known["mean"] is None else tuple(known["mean"]),
        None if known["std"] is None else tuple(known["std"]),
        None if size is None else (size[0], size[1]),
    ).to(where)
    return Delivered(card, Forward(student, adapter), Classification(card.classes), where)


def evaluate(
    run: str | Path,
    data: Any = None,
    *,
    split: str = "test",
    label: str = "label",
    model: nn.Module | None = None,
    device: str = "auto",
) -> dict[str, float]:
    """Metrics of a delivered student.

    Args:
        run: the folder of a run or an export, or its card.
        data: a labelled file or folder, evaluated whole; a `Data` or arrays, of which `split` is
            taken; None: the data that the run was made with.
        split: `train`, `val` or `test`.
        label: the label column of a table.
        model: a module of the student's architecture, for one that was built in Python.
        device: as in training.

    Returns:
        Every metric of the task, by name.

    Raises:
        InputError: no finished run, data that does not fit, or a split without labels.
    """
    student = delivered(run, model=model, device=device)
    if isinstance(data, str | Path) and os.path.exists(data):
        inputs = _inputs(student.card, data)
        y: Tensor | None = load_labels(data, student.card.classes, label)
        logits = student.logits(inputs)
    else:
        part = _split(student.card, data, split)
        y, logits = part.y, student.logits(part)
    if y is None:
        raise InputError(f"the {split} split has no labels to evaluate against")
    return student.task.metrics(logits, y)


def predict(
    run: str | Path,
    samples: Any,
    *,
    model: nn.Module | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """What a delivered student says of new samples.

    Args:
        run: the folder of a run or an export, or its card.
        samples: an `.npz` with `x`, a table without label, a folder of images, or an array.
        model: a module of the student's architecture, for one that was built in Python.
        device: as in training.

    Returns:
        `label` (class names), `confidence` (N,) and `probabilities` (N, C), in the samples' order.

    Raises:
        InputError: no finished run, or samples of another kind or shape.
    """
    student = delivered(run, model=model, device=device)
    if isinstance(samples, str | Path):
        split = _inputs(student.card, samples)
    else:
        split = ArraySplit(torch.as_tensor(samples))
    columns = student.task.predict(student.logits(split))
    names = [student.card.classes[number] for number in columns["label"].tolist()]
    return {
        "label": names,
        "confidence": columns["confidence"].numpy(),
        "probabilities": columns["probabilities"].numpy(),
    }


def _inputs(card: Card, path: str | Path) -> Split:
    """New samples, encoded exactly as those of the training were."""
    encode = card.folder / "encode.json"
    if not encode.exists():
        raise InputError(
            f"{card.folder} does not say how its samples were made, so {path} cannot be read for "
            f"it; give arrays from Python"
        )
    state = card.folder / "encode.safetensors"
    tensors = load_tensors(state)[0] if state.exists() else None
    return load_inputs(path, read_json(encode), card.shape, tensors)


def _split(card: Card, data: Any, split: str) -> Split:
    loaded = own_data(card) if data is None else load_data(data)
    if split not in loaded.splits:
        raise InputError(f"{loaded.name!r} has no {split} split; it has {', '.join(loaded.splits)}")
    return loaded.splits[split]


def own_data(card: Card) -> Data:
    """The data that the run was made with; refused where it has changed since."""
    recipe = card.folder / "recipe.yaml"
    if not recipe.exists():
        raise InputError(f"{card.folder} holds no recipe to find its data by; give --data")
    loaded = load_data(DataSpec.model_validate(yaml.read(recipe)["data"]))
    known = card.content["data"].get("digests", {})
    found = loaded.facts.get("digests", {})
    changed = [name for name, digest in known.items() if found.get(name) != digest]
    if changed:
        raise InputError(
            f"the {changed[0]} split of {loaded.name!r} is not what the run was made with; give "
            f"the original data, or --data to evaluate on another"
        )
    return loaded
