"""`limbeck taps`: where a model can be tapped, and what comes out there."""

from __future__ import annotations

import argparse

from limbeck.cli import say
from limbeck.cli.arguments import Overrides
from limbeck.errors import InputError
from limbeck.models.ref import parse_ref


def run(options: argparse.Namespace, overrides: Overrides) -> int:
    """Print every module path with the shape of its output for one sample."""
    reference = parse_ref(options.model)
    try:
        shape = tuple(int(size) for size in options.shape.split(","))
    except ValueError:
        raise InputError(f"--shape {options.shape!r} is not a list of sizes like 3,32,32") from None
    import torch

    from limbeck.models.source import build_model
    from limbeck.nn.taps import tap_shapes

    model = build_model(reference, shape=shape, classes=options.classes)
    rows = tap_shapes(model, torch.zeros(1, *shape))
    if options.json:
        say.as_json(rows)
        return 0
    output = say.results()
    for path, size in rows.items():
        output.print(f"[cyan]{path:40}[/cyan] {' x '.join(map(str, size))}")
    return 0
