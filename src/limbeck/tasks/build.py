"""From the recipe's word to the task."""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck.data.base import Data
from limbeck.errors import InputError, nearest
from limbeck.models.imports import import_object
from limbeck.recipe.spec import Recipe, Training
from limbeck.tasks.base import Task
from limbeck.tasks.classification import Classification, Metric

TASKS = ("classification",)


def build_task(recipe: Recipe, data: Data) -> Task:
    """The task that the recipe names, for these classes.

    Raises:
        InputError: unknown task, or training options that do not fit the classes.
    """
    if recipe.task not in TASKS:
        raise InputError(
            f"unknown task {recipe.task!r}{nearest(recipe.task, TASKS)}; known: {', '.join(TASKS)}"
        )
    training = recipe.training
    return Classification(
        data.classes,
        _class_weights(training, data),
        training.label_smoothing,
        own_metric(training.metric),
    )


def _class_weights(training: Training, data: Data) -> Tensor | None:
    """Weights with mean 1 over the samples; `balanced` is the inverse class frequency."""
    if training.class_weights is None:
        return None
    if training.class_weights != "balanced":
        return torch.tensor(training.class_weights)
    if data.train.y is None:
        raise InputError("training.class_weights 'balanced' needs labelled samples")
    counts = torch.bincount(data.train.y, minlength=len(data.classes)).float()
    return counts.sum() / (len(counts) * counts.clamp(min=1))


def own_metric(name: str) -> dict[str, Metric]:
    """A user's metric `module:function`, by that name; nothing for a built-in one."""
    if ":" not in name:
        return {}
    function = import_object(name)

    def measure(logits: Tensor, y: Tensor) -> float:
        try:
            return float(function(logits, y))
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            raise InputError(f"the metric {name!r} failed on {len(y)} samples: {reason}") from error

    return {name: measure}
