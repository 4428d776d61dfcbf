"""`limbeck evaluate`: metrics of a finished student."""

from __future__ import annotations

import argparse
from pathlib import Path

from limbeck.cli import say
from limbeck.cli.arguments import Overrides
from limbeck.cli.recipes import own_model, read_recipe


def run(options: argparse.Namespace, overrides: Overrides) -> int:
    """Evaluate on the run's own split, or on labelled data given by --data."""
    recipe = read_recipe(options, overrides)
    given = "data" in recipe.model_fields_set
    from limbeck.runs.evaluate import evaluate

    metrics = evaluate(
        options.run,
        recipe.data if given else None,
        split=options.split,
        metric=recipe.training.metric,
        model=own_model(recipe, options.run),
        device=recipe.training.device,
        workers=recipe.training.workers,
    )
    # A file or folder is evaluated whole, not a split of it.
    split = "data" if given and Path(recipe.data.source).exists() else options.split
    if options.json:
        say.as_json({"run": options.run, "split": split, "metrics": metrics})
        return 0
    from limbeck.report.layout import rich_run

    say.results().print(rich_run({f"{split}.{name}": value for name, value in metrics.items()}))
    return 0
