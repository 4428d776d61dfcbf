"""`limbeck shrink`: a narrower, distilled, exported student of a teacher."""

from __future__ import annotations

import argparse
from pathlib import Path

from limbeck.cli import say
from limbeck.cli.arguments import Overrides
from limbeck.cli.recipes import code_flags, read_recipe
from limbeck.cli.training import show
from limbeck.errors import InputError


def run(options: argparse.Namespace, overrides: Overrides) -> int:
    """All stages; those that stand in the folder are taken from there."""
    recipe = read_recipe(options, overrides)
    if not recipe.teachers:
        raise InputError("shrink makes a teacher smaller: name one with --teacher")
    if recipe.student:
        raise InputError("shrink builds the student itself; `limbeck distill` takes one")
    from limbeck.runs.api import new_folder
    from limbeck.runs.shrink import Plan, shrink_recipe

    plan = Plan(
        reduction=options.reduction,
        widths=options.widths,
        epochs=options.size_epochs,
        skip=tuple(options.skip),
        formats=tuple(options.formats),
    )
    if options.dry_run:
        say.recipe(options, recipe.model_dump(mode="json"))
        return 0
    folder = Path(recipe.out) if recipe.out else new_folder("shrink")
    try:
        result = shrink_recipe(recipe, plan, folder, say=say.notes().print)
    except KeyboardInterrupt:
        say.interrupted("shrink", folder, code_flags(overrides))
        return 130
    show(options, folder / "student", result.metrics)
    return 0
