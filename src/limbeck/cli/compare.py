"""`limbeck compare`: arms by seeds under one recipe."""

from __future__ import annotations

import argparse
from pathlib import Path

from limbeck.cli import say
from limbeck.cli.arguments import Overrides
from limbeck.cli.recipes import code_flags, read_recipe


def run(options: argparse.Namespace, overrides: Overrides) -> int:
    """Compare, and print the table and the verdict."""
    recipe = read_recipe(options, overrides)
    from limbeck.runs.api import new_folder
    from limbeck.runs.compare import arm_jobs, compare_job
    from limbeck.runs.execute import resolved
    from limbeck.runs.job import make_job

    job = make_job(recipe)
    if options.dry_run:
        arm_jobs(job)
        say.recipe(options, resolved(job))
        return 0
    folder = Path(recipe.out) if recipe.out else new_folder("compare")
    try:
        comparison = compare_job(job, folder, resume=bool(options.resume))
    except KeyboardInterrupt:
        say.interrupted("compare", folder, code_flags(overrides))
        return 130
    if options.json:
        say.as_json({"out": str(folder), **comparison.table})
    else:
        show(folder, comparison.table)
    return 0


def show(folder: Path, table: dict[str, object]) -> None:
    """The table in colour, the verdict, and where everything is."""
    from limbeck.report.layout import rich_table

    output = say.results()
    output.print(rich_table(table))
    output.print(f"[bold]{table['verdict']}[/bold]\n")
    output.print(f"folder  {folder}\nreport  {folder / 'report.html'}", soft_wrap=True)
