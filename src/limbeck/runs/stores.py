"""Stored teachers in a job: the views that they hold, the rows of its samples, and the checks."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from limbeck.data.base import Data, Record, Split
from limbeck.data.fingerprint import tensors_digest
from limbeck.data.random import derive
from limbeck.data.views import Views, parse_views
from limbeck.errors import InputError
from limbeck.models.ref import ModelRef, names_code, parse_ref
from limbeck.models.source import build_model
from limbeck.nn.input import InputAdapter
from limbeck.recipe.spec import Recipe, TeacherSpec
from limbeck.store.reader import TeacherStore
from limbeck.store.verify import (
    Rerun,
    check_bytes,
    check_definition,
    check_views,
    refuse_wrong,
    rerun,
)
from limbeck.teachers.base import Teacher
from limbeck.teachers.live import LiveTeacher, class_order
from limbeck.teachers.several import Teachers
from limbeck.teachers.stored import Stored

if TYPE_CHECKING:
    from limbeck.runs.job import Job

_log = logging.getLogger("limbeck")


def make_views(recipe: Recipe, kind: str, parts: Mapping[str, Split]) -> dict[str, Views] | None:
    """The augmentation of each part; None where samples stay clean.

    Replayed views are the same for every seed, so that stored outputs serve all of them.
    """
    training = recipe.training
    if not training.views:
        return None
    seed = derive(0 if training.view_count else recipe.seed, "views")
    return {
        part: parse_views(training.views, kind=kind, seed=seed, source=split)
        for part, split in parts.items()
    }


def open_store(reference: ModelRef, spec: TeacherSpec, data: Data) -> Stored:
    """The teacher `store:PATH[?tail=spread]`.

    Raises:
        InputError: an unknown option, or settings that only a live teacher can follow.
    """
    unknown = [key for key in reference.options if key != "tail"]
    if unknown:
        raise InputError(f"unknown option {unknown[0]!r} of {reference.text!r} (known: tail)")
    for key in ("input", "classes"):
        if getattr(spec, key) is not None:
            raise InputError(
                f"teachers.{key} of {reference.text!r} cannot be changed: its outputs are stored; "
                f"say it when labelling"
            )
    tail = str(reference.options.get("tail", "spread"))
    stored = Stored(TeacherStore(reference.name), data.classes, tail=tail, name=reference.text)
    stored.tap(spec.taps)
    return stored


def with_stores(job: Job) -> Job:
    """The job under its stores: their views where it names none, its samples under their ids.

    Raises:
        InputError: views or samples that a store does not hold.
    """
    stores = [teacher for teacher in job.teachers.members if isinstance(teacher, Stored)]
    if not stores:
        return job
    recipe = _adopt(job.recipe, stores[0].store)
    count = recipe.training.view_count or 1
    for stored in stores:
        if recipe.training.views and stored.store.views < count:
            raise InputError(
                f"training.view_count is {count}, but the store {stored.store.path} holds "
                f"{stored.store.views} view(s) of a sample; ask for fewer, or label again with "
                f"--views {count}"
            )
    splits = _labeled(job.data)
    members: list[Teacher] = []
    for teacher in job.teachers.members:
        if isinstance(teacher, Stored):
            before = {name: split.ids for name, split in splits.items()}
            teacher, splits = teacher.serving(splits, count, job.device)
            if any(isinstance(other, Stored) for other in members):
                _refuse_two_orders(before, splits, teacher)
        members.append(teacher)
    data = replace(job.data, train=splits["train"], pool=splits.get("pool"))
    views = make_views(recipe, data.kind, splits) or {}
    for stored in stores:
        for part, replayed in views.items():
            check_definition(stored.store, part, replayed)
    return replace(job, recipe=recipe, data=data, teachers=Teachers(members))


def _labeled(data: Data) -> dict[str, Split]:
    """What batches are made of."""
    return {name: split for name, split in data.splits.items() if name in ("train", "pool")}


def _adopt(recipe: Recipe, store: TeacherStore) -> Recipe:
    """Where the recipe says nothing of views, those of the store."""
    training, replay = recipe.training, store.manifest.replay
    said = training.model_fields_set
    if "views" not in said and replay.count > 1:
        training = training.model_copy(update={"views": list(replay.ops)})
        _log.info("views of the store %s: %s", store.path, replay.ops)
    if training.views and training.view_count is None:
        training = training.model_copy(update={"view_count": replay.count})
    return recipe.model_copy(update={"training": training})


def _refuse_two_orders(
    before: Mapping[str, Tensor], after: Mapping[str, Split], stored: Stored
) -> None:
    """Stores of differently ordered data draw different views for one sample."""
    if any(not torch.equal(before[name], after[name].ids) for name in after):
        raise InputError(
            f"the store {stored.store.path} knows the samples under other ids than the teacher "
            f"before it: their views differ; label both from the same data"
        )


def check_stores(job: Job) -> None:
    """Look at the stores of a job: bytes, some views, some outputs.

    Raises:
        InputError: a store that is damaged, or that its views or its teacher contradict.
    """
    splits = _labeled(job.data)
    views = make_views(job.recipe, job.data.kind, splits) or {}
    for teacher in job.teachers.members:
        if isinstance(teacher, Stored):
            check_bytes(teacher.store, small_only=True)
            seen = check_views(teacher.store, splits, views) if views else 0
            again = run_again(teacher.store, 8)
            rows = 0 if again is None else again.rows
            checked_words = "%s: %d replayed inputs and %d outputs of its teacher checked"
            _log.info(checked_words, teacher.name, seen, rows)


def run_again(store: TeacherStore, rows: int) -> Rerun | None:
    """Run some stored inputs through the store's teacher; None where its files are not here.

    Raises:
        InputError: the teacher has changed, or says something else.
    """
    author = author_of(store)
    if author is None:
        return None
    found = rerun(store, author, _few(store.probes(), rows))
    refuse_wrong(store, found)
    return found


def _few(probes: Record, rows: int) -> Record:
    """So many of them, spread."""
    count = len(probes["id"])
    places = torch.linspace(0, count - 1, min(rows, count)).long()
    return {key: value[places] for key, value in probes.items()}


def author_of(store: TeacherStore) -> LiveTeacher | None:
    """The teacher that a store was made by, where its own files are here; no code is imported.

    Raises:
        InputError: its weights have changed since.
    """
    author = store.manifest.author
    if author.model is None or names_code(author.model):
        return None
    try:
        reference = parse_ref(author.model)
    except InputError:
        return None
    if reference.source not in ("limbeck", "run"):
        return None
    shape = tuple(store.probes()["x"].shape[1:])
    model = build_model(reference, shape=shape, classes=len(author.classes or store.classes))
    if digest_of(model) != author.weights:
        raise InputError(
            f"the teacher {author.model!r} has other weights than when the store {store.path} was "
            f"made; label again, or keep the store where the old teacher is"
        )
    order = None
    if author.classes is not None:
        order = class_order(author.classes, store.classes, author.model)
    known = {key: value and tuple(value) for key, value in author.input.items()}
    return LiveTeacher(model, InputAdapter(**known), (), order, name=author.name)


def digest_of(model: nn.Module) -> str:
    """Digest of a model's weights, by name."""
    state = model.state_dict()
    names = torch.tensor(list(json.dumps(sorted(state)).encode()), dtype=torch.uint8)
    return tensors_digest([names, *(state[name] for name in sorted(state))])
