"""The card: what a delivered student is, as plain data."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from limbeck import __version__
from limbeck.data.base import Data
from limbeck.exporters.latency import latency
from limbeck.methods.build import dump_method
from limbeck.nn.input import InputAdapter
from limbeck.runs.job import Job
from limbeck.runs.models import sized
from limbeck.students.batch_ensemble import BatchEnsemble, batch_ensemble
from limbeck.teachers.base import Teacher
from limbeck.teachers.stored import Stored


def make_card(job: Job, student: nn.Module, metrics: dict[str, float]) -> dict[str, Any]:
    """The card of `student`, JSON-ready; latencies are measured here, on the CPU."""
    return {
        "limbeck": __version__,
        "task": job.recipe.task,
        "model": {"source": student_source(job, student)} | describe_model(student, job.data),
        "input": describe_input(job.adapter, job.data),
        "classes": list(job.data.classes),
        "teachers": [describe_teacher(job, teacher) for teacher in job.teachers.members],
        "method": dump_method(job.method),
        "metrics": metrics,
        "data": dict(job.data.facts),
        "seed": job.recipe.seed,
        "exports": {},
    }


def student_source(job: Job, student: nn.Module) -> str | None:
    """The reference that rebuilds the student; None where no name does.

    A student that was built in Python has none, nor one whose modules its method replaced.
    """
    from limbeck.models.card import read_card
    from limbeck.models.ref import parse_ref

    if not isinstance(job.student, str):
        return None
    plain = job.build(job.recipe.seed)
    members = len(student) if isinstance(student, BatchEnsemble) else 0
    multiplied = members and not isinstance(plain, BatchEnsemble)
    if multiplied:
        plain = batch_ensemble(plain, members)
    if _shapes(plain) != _shapes(student):
        return None
    reference = parse_ref(job.student)
    if reference.source == "run":
        source = read_card(reference.name).source
        if source is None or not multiplied:
            return source
        reference = parse_ref(source)
    reference = sized(reference, job.data)
    return (reference.with_options(members=members) if multiplied else reference).text


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in model.state_dict().items()}


def describe_model(model: nn.Module, data: Data) -> dict[str, Any]:
    """Size and speed of a model."""
    tensors = [*model.parameters(), *model.buffers()]
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "bytes": sum(tensor.numel() * tensor.element_size() for tensor in tensors),
        "latency_ms": latency(model, data.shape, dtype=_dtype(data)),
    }


def _dtype(data: Data) -> torch.dtype:
    """What a model of this data is fed: token ids, or floats."""
    x = data.val.fetch(torch.zeros(1, dtype=torch.long))["x"]
    return x.dtype if x.dtype == torch.int64 else torch.float32


def describe_input(adapter: InputAdapter, data: Data) -> dict[str, Any]:
    """What a caller must do to a sample before the model sees it."""
    mean, std, size = adapter.key
    return {
        "shape": list(data.shape),
        "mean": None if mean is None else list(mean),
        "std": None if std is None else list(std),
        "size": None if size is None else list(size),
        "scale": "images in [0, 1]" if data.kind == "image" else None,
    }


def describe_teacher(job: Job, teacher: Teacher) -> dict[str, Any]:
    """Name, size and speed of a teacher; of a stored one only what its store knows."""
    if isinstance(teacher, Stored):
        author = teacher.store.manifest.author
        return {"model": teacher.name, "parameters": author.parameters, "labeled_by": author.name}
    return {"model": teacher.name} | describe_model(teacher.modules()[0], job.data)
