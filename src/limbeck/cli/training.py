"""What `train` and `distill` share: recipe, job, run, and what is printed of it."""

from __future__ import annotations

import argparse
from pathlib import Path

from limbeck.cli import say
from limbeck.cli.arguments import Overrides
from limbeck.cli.recipes import code_flags
from limbeck.recipe.spec import Recipe


def train(options: argparse.Namespace, overrides: Overrides, recipe: Recipe) -> int:
    """Run one training and print what came of it."""
    if finished(options, recipe):
        return 0
    from limbeck.engine.ranks import Ranks
    from limbeck.runs.api import new_folder, run_job
    from limbeck.runs.execute import make_engine, resolved
    from limbeck.runs.job import make_job

    job = make_job(recipe)
    if options.dry_run:
        say.chosen(make_engine(job, Ranks(job.device)).method)
        say.recipe(options, resolved(job))
        return 0
    folder = Path(recipe.out) if recipe.out else new_folder(options.verb)
    try:
        told = None if options.json else say.chosen
        result = run_job(job, folder, resume=bool(options.resume), started=told)
    except KeyboardInterrupt:
        say.interrupted(options.verb, folder, code_flags(overrides))
        return 130
    if say.first_rank():
        show(options, folder, result.metrics)
    return 0


def finished(options: argparse.Namespace, recipe: Recipe) -> bool:
    """Say so where the run to resume has come to its end already."""
    from limbeck.recipe.folder import read_json

    folder = Path(recipe.out or "")
    if not options.resume or not (folder / "report.html").exists():
        return False
    show(options, folder, read_json(folder / "card.json")["metrics"])
    return True


def show(options: argparse.Namespace, folder: Path, metrics: dict[str, float]) -> None:
    """The metrics of a run, and where everything is."""
    if options.json:
        say.as_json({"out": str(folder), "metrics": metrics})
        return
    from limbeck.report.layout import rich_run

    output = say.results()
    output.print(rich_run(metrics))
    output.print(f"run     {folder}\nreport  {folder / 'report.html'}", soft_wrap=True)
