"""`limbeck distill`: a student with the help of a teacher."""

from __future__ import annotations

import argparse

from limbeck.cli.arguments import Overrides
from limbeck.cli.recipes import read_recipe
from limbeck.cli.training import train


def run(options: argparse.Namespace, overrides: Overrides) -> int:
    """Train with the recipe's teachers and method."""
    return train(options, overrides, read_recipe(options, overrides))
