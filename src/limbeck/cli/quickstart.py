"""`limbeck quickstart`: the whole tour on built-in data."""

from __future__ import annotations

import argparse
from pathlib import Path

from limbeck.cli import say
from limbeck.cli.arguments import Overrides
from limbeck.cli.compare import show
from limbeck.cli.recipes import read_recipe


def run(options: argparse.Namespace, overrides: Overrides) -> int:
    """Teacher, student, proof; about a minute."""
    recipe = read_recipe(options, overrides)
    from limbeck.runs.api import new_folder
    from limbeck.runs.quickstart import LABELS, STUDENT, TEACHER, quickstart, summary

    folder = Path(options.resume or recipe.out or new_folder("quickstart"))
    if options.dry_run:
        from limbeck.runs.quickstart import comparison_recipe

        teacher = folder / "teacher"
        say.recipe(options, comparison_recipe(teacher, recipe.seed, recipe.training))
        return 0
    if not options.json:
        say.notes().print(
            f"A teacher ({TEACHER}) learns from {LABELS} labelled digits; a student ({STUDENT}) "
            f"learns without it, and with it, from the same labels and the unlabelled rest."
        )
    try:
        comparison, seconds = quickstart(
            folder, seed=recipe.seed, machine=recipe.training, resume=bool(options.resume)
        )
    except KeyboardInterrupt:
        say.interrupted("quickstart", folder, [])
        return 130
    if options.json:
        say.as_json(summary(comparison, seconds))
    else:
        show(folder, comparison.table)
        say.results().print(f"took    {seconds:.0f} s")
    return 0
