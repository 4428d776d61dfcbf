"""Using a delivered student: metrics on a split, and predictions for new samples."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.data.base import Data, Record, Split
from limbeck.data.collect import collect
from limbeck.data.inputs import array_inputs, load_inputs, load_labels
from limbeck.data.load import load_data
from limbeck.engine.checkpoint import load_tensors
from limbeck.engine.ranks import choose_device
from limbeck.errors import InputError
from limbeck.models.card import Card, read_card
from limbeck.nn.forward import Forward
from limbeck.nn.input import InputAdapter
from limbeck.recipe import yaml
from limbeck.recipe.folder import read_json
from limbeck.recipe.spec import DataSpec
from limbeck.runs.api import validate
from limbeck.runs.load import load
from limbeck.tasks.base import Task
from limbeck.tasks.build import own_metric
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

        return collect(answer, split.to(self.device))


def delivered(
    path: str | Path,
    *,
    model: nn.Module | None = None,
    device: str = "auto",
    metric: str = "accuracy",
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
    task = Classification(card.classes, extra=own_metric(metric))
    return Delivered(card, Forward(student, adapter), task, where)


def evaluate(
    run: str | Path,
    data: Any = None,
    *,
    split: str = "test",
    metric: str = "accuracy",
    model: nn.Module | None = None,
    device: str = "auto",
    workers: int = 0,
) -> dict[str, float]:
    """Metrics of a delivered student.

    Args:
        run: the folder of a run or an export, or its card.
        data: a labelled file or folder, evaluated whole; a named set, a `Data` or arrays, of which
            `split` is taken; a `DataSpec`, where the label column has another name; None: the
            data that the run was made with.
        split: `train`, `val` or `test`.
        metric: one of the user's own, `module:function`, to be added to those of the task.
        model: a module of the student's architecture, for one that was built in Python.
        device: as in training.
        workers: threads that read streamed samples ahead.

    Returns:
        Every metric of the task, by name.

    Raises:
        InputError: no finished run, data that does not fit, or a split without labels.
    """
    student = delivered(run, model=model, device=device, metric=metric)
    spec = data if isinstance(data, DataSpec) else DataSpec()
    source = spec.source if isinstance(data, DataSpec) else data
    y: Tensor | None
    if isinstance(source, str | Path) and os.path.exists(source):
        part = _inputs(student.card, source)
        y = load_labels(source, student.card.classes, spec.label)
    else:
        part = _split(student.card, data, split, workers)
        y = part.y
    if y is None:
        raise InputError(f"the {split} split has no labels to evaluate against")
    return student.task.metrics(student.logits(part), y.cpu())


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
    columns = student.task.predict(student.logits(_inputs(student.card, samples)))
    names = [student.card.classes[number] for number in columns["label"].tolist()]
    return {
        "label": names,
        "confidence": columns["confidence"].numpy(),
        "probabilities": columns["probabilities"].numpy(),
    }


def _inputs(card: Card, samples: Any) -> Split:
    """New samples, encoded exactly as those of the training were."""
    encode, tensors = encoding_of(card)
    if not isinstance(samples, str | Path):
        return array_inputs(samples, encode, card.shape)
    return load_inputs(samples, encode, card.shape, tensors)


def encoding_of(card: Card) -> tuple[dict[str, Any], dict[str, Tensor] | None]:
    """How the training of a run made its samples.

    Raises:
        InputError: its folder does not say.
    """
    path = card.folder / "encode.json"
    if not path.exists():
        raise InputError(f"{card.folder} does not say how its samples were made: it lacks {path}")
    state = card.folder / "encode.safetensors"
    return read_json(path), load_tensors(state)[0] if state.exists() else None


def _split(card: Card, data: Any, split: str, workers: int) -> Split:
    if data is None:
        loaded = own_data(card, workers)
    else:
        loaded = load_data(data, workers=workers)
        _check_alike(card, loaded)
    if split not in loaded.splits:
        raise InputError(f"{loaded.name!r} has no {split} split; it has {', '.join(loaded.splits)}")
    return loaded.splits[split]


def _check_alike(card: Card, data: Data) -> None:
    """Data with splits of its own must mean by its samples and classes what the run's did."""
    if data.classes != card.classes:
        raise InputError(
            f"{data.name!r} has the classes {', '.join(data.classes[:5])}, ..., but the student "
            f"knows {', '.join(card.classes[:5])}, ..."
        )
    fitted = card.folder / "encode.json"
    if data.kind in ("table", "text") and fitted.exists() and read_json(fitted) != data.encode:
        raise InputError(
            f"{data.name!r} makes other columns of its samples than the run's data did; give the "
            f"path of a file, which is read as the run's was"
        )


def own_data(card: Card, workers: int = 0) -> Data:
    """The data that the run was made with; refused where it has changed since."""
    recipe = card.folder / "recipe.yaml"
    if not recipe.exists():
        raise InputError(f"{card.folder} holds no recipe to find its data by; give --data")
    loaded = load_data(validate(yaml.read(recipe)).data, workers=workers)
    known = card.content["data"].get("digests", {})
    found = loaded.facts.get("digests", {})
    changed = [name for name, digest in known.items() if found.get(name) != digest]
    if changed:
        raise InputError(
            f"the {changed[0]} split of {loaded.name!r} is not what the run was made with; give "
            f"the original data, or --data to evaluate on another"
        )
    return loaded
