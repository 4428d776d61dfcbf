"""Models by name in a run: built for its data, behind their own input adapter."""

from __future__ import annotations

import copy

from torch import nn

from limbeck.data.base import Data
from limbeck.data.texts import UNKNOWN
from limbeck.errors import InputError
from limbeck.models.ref import ModelRef, parse_ref
from limbeck.nn.input import InputAdapter
from limbeck.recipe.spec import InputSpec, TeacherSpec
from limbeck.runs.seeding import seeded
from limbeck.tasks.base import Task
from limbeck.teachers.live import LiveTeacher, class_order


def named_model(name: str, data: Data, task: Task, outputs: int | None = None) -> nn.Module:
    """The model called `name`, for the shape of the data and the task's outputs, or others."""
    from limbeck.models.source import build_model

    reference = sized(parse_ref(name), data)
    return build_model(reference, shape=data.shape, classes=outputs or task.outputs)


def sized(reference: ModelRef, data: Data) -> ModelRef:
    """A text encoder of ours learns here how many token ids the data has."""
    words = data.encode.get("text", {}).get("vocabulary")
    if words is None or reference.name != "text" or "vocabulary" in reference.options:
        return reference
    return reference.with_options(vocabulary=len(words) + UNKNOWN + 1)


def make_adapter(spec: InputSpec | None, data: Data) -> InputAdapter:
    """The input adapter that `spec` asks for; where it is silent the data's own statistics."""
    mean = data.mean if spec is None or spec.mean is None else tuple(spec.mean)
    std = data.std if spec is None or spec.std is None else tuple(spec.std)
    size = None if spec is None or spec.size is None else spec.size
    return InputAdapter(mean, std, (size, size) if isinstance(size, int) else size)


def own_teacher(model: nn.Module, data: Data) -> LiveTeacher:
    """A module of the caller's as a teacher; theirs keeps its mode and its trainable parameters."""
    return LiveTeacher(copy.deepcopy(model), make_adapter(None, data), name=type(model).__name__)


def named_teacher(spec: TeacherSpec, data: Data, task: Task) -> LiveTeacher:
    """A teacher by name, with its own input and classes.

    Raises:
        InputError: no weights, or outputs that cannot be mapped to the data's classes.
    """
    model, order = _trained(spec, data, task), None
    if spec.classes is not None:
        order = class_order(spec.classes, data.classes, spec.model, partial=True)
    adapter = make_adapter(spec.input or _run_input(spec.model), data)
    return LiveTeacher(model, adapter, spec.taps, order, name=spec.model, fast=spec.fast)


def _trained(spec: TeacherSpec, data: Data, task: Task) -> nn.Module:
    """A teacher by name; a reference network without weights has nothing to teach."""
    name = spec.model
    reference = parse_ref(name)
    if reference.source == "limbeck" and reference.weights is None:
        raise InputError(
            f"the teacher {name!r} has no weights; write {name}@FILE.safetensors, or name the "
            f"folder of a run that `limbeck train` left"
        )
    with seeded(0, "teacher"):
        return named_model(name, data, task, len(spec.classes or ()))


def _run_input(name: str) -> InputSpec | None:
    """The input of a teacher that is a run of ours: what its card says."""
    from limbeck.models.card import read_card

    reference = parse_ref(name)
    if reference.source != "run":
        return None
    known = read_card(reference.name).content["input"]
    return InputSpec(mean=known["mean"], std=known["std"], size=known["size"])
