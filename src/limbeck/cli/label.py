"""`limbeck label`: a teacher's outputs, stored."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck.cli import say
from limbeck.cli.arguments import Overrides
from limbeck.cli.recipes import code_flags, read_recipe
from limbeck.errors import InputError
from limbeck.recipe.spec import Recipe

if TYPE_CHECKING:
    from limbeck.store.manifest import Manifest
    from limbeck.store.reader import TeacherStore


def run(options: argparse.Namespace, overrides: Overrides) -> int:
    """Label, and print where the store is."""
    recipe = _with_views(read_recipe(options, overrides), options)
    if not options.outputs and not recipe.teachers:
        raise InputError("name who labels with --teacher MODEL, or outputs with --from FILE")
    wish, file = _wish(options), options.outputs
    if file and not Path(file).is_file():
        raise InputError(f"there is no file {file} to take outputs from")
    from limbeck.runs.api import new_folder
    from limbeck.runs.label import Wish, label_all, label_from
    from limbeck.store.manifest import read_plan

    folder = Path(recipe.out) if recipe.out else new_folder("label")
    begun = read_plan(folder) if options.resume else None
    kept = Wish(**({} if begun is None else _begun(begun)) | wish)
    if options.dry_run:
        say.recipe(options, recipe.model_dump(mode="json"))
        return 0
    resume = bool(options.resume)
    try:
        if file:
            stores = [label_from(recipe, kept, folder, Path(file), resume=resume)]
        else:
            stores = label_all(recipe, kept, folder, resume=resume)
    except KeyboardInterrupt:
        say.interrupted("label", folder, code_flags(overrides))
        return 130
    show(options, stores)
    return 0


def _with_views(recipe: Recipe, options: argparse.Namespace) -> Recipe:
    if options.views is None:
        if recipe.training.views and recipe.training.view_count is None:
            raise InputError(
                "--training.views names augmentations, but not how many views are to be stored; "
                "add --views N"
            )
        return recipe
    training = recipe.training.model_copy(update={"view_count": options.views})
    return recipe.model_copy(update={"training": training})


def _wish(options: argparse.Namespace) -> dict[str, Any]:
    """What was said of the outputs; the rest is what a resumed labelling was begun with."""
    said = {
        "top_k": options.top_k,
        "dtype": options.dtype,
        "batch": options.batch,
        "splits": options.splits,
        "pooled": None if options.features is None else options.features == "pooled",
        "skip_nonfinite": options.skip_nonfinite or None,
    }
    if options.views is not None and options.views < 1:
        raise InputError(f"--views is {options.views}; give 1 or more")
    return {key: value for key, value in said.items() if value is not None}


def _begun(plan: Manifest) -> dict[str, Any]:
    keys = {key: getattr(plan, key) for key in ("top_k", "dtype", "batch", "pooled")}
    return keys | {"splits": [part.name for part in plan.parts]}


def show(options: argparse.Namespace, stores: list[TeacherStore]) -> None:
    """A line a store."""
    if options.json:
        say.as_json({"stores": [{"out": str(one.path), "samples": len(one)} for one in stores]})
        return
    from limbeck.cli.store import table

    output = say.results()
    for store in stores:
        output.print(table(store))
        output.print(f"use it with  --teacher store:{store.path}", soft_wrap=True)
