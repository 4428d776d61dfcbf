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
    if recipe.method not in ("kd", "labels", {"name": "labels"}) and not options.resume:
        raise InputError("train has no method: it trains on the labels; see `limbeck distill`")
    return train(options, overrides, recipe.model_copy(update={"method": "labels"}))
