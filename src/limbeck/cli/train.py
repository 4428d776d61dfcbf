"""`limbeck train`: a model on labels alone."""

from __future__ import annotations

import argparse

from limbeck.cli.arguments import Overrides
from limbeck.cli.recipes import read_recipe
from limbeck.cli.training import train
from limbeck.errors import InputError


def run(options: argparse.Namespace, overrides: Overrides) -> int:
    """Train without a teacher."""
    recipe = read_recipe(options, overrides)
    if recipe.teachers:
        raise InputError("train works without a teacher; `limbeck distill` takes one")
    given = "method" in recipe.model_fields_set and not options.resume
    if given and recipe.method not in ("labels", {"name": "labels"}):
        raise InputError("train has no method: it trains on the labels; see `limbeck distill`")
    return train(options, overrides, recipe.model_copy(update={"method": "labels"}))
