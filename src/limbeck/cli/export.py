"""`limbeck export`: the student of a run in other formats, each checked."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from limbeck.cli import say
from limbeck.cli.arguments import Overrides
from limbeck.cli.recipes import own_model, read_recipe


def run(options: argparse.Namespace, overrides: Overrides) -> int:
    """Export, and print how far each file differs from the student."""
    recipe = read_recipe(options, overrides)
    out = recipe.out or str(Path(options.run if Path(options.run).is_dir() else ".") / "export")
    from limbeck.runs.export import export

    card = export(
        options.run,
        out,
        formats=options.formats,
        data=recipe.data if "data" in recipe.model_fields_set else None,
        model=own_model(recipe, options.run),
        workers=recipe.training.workers,
    )
    if options.json:
        say.as_json({"out": out, "exports": card["exports"]})
    else:
        show(out, card["exports"])
    return 0


def show(out: str, exports: dict[str, dict[str, Any]]) -> None:
    """A row a format."""
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for header in ("format", "file", "bytes", "largest difference", "check"):
        table.add_column(header)
    for name, entry in exports.items():
        agreement = entry.get("agreement")
        check = "[green]passed[/green]" if agreement is None else f"agrees on {agreement:.1%}"
        difference = f"{entry['max_abs_difference']:.2g}"
        table.add_row(name, entry["file"], f"{entry['bytes']:,}", difference, check)
    output = say.results()
    output.print(table)
    output.print(f"folder  {out}", soft_wrap=True)
