"""`limbeck methods`: every method in one line."""

from __future__ import annotations

import argparse

from limbeck.cli import say
from limbeck.cli.arguments import Overrides
from limbeck.methods.registry import all_methods


def run(options: argparse.Namespace, overrides: Overrides) -> int:
    """Print the registry."""
    methods = all_methods()
    if options.json:
        say.as_json(
            {
                name: {"summary": entry.summary, "needs": entry.needs, "paper": entry.paper}
                for name, entry in methods.items()
            }
        )
        return 0
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for header in ("method", "what it does", "needs", "paper"):
        table.add_column(header, overflow="fold")
    for name, entry in methods.items():
        table.add_row(f"[cyan]{name}[/cyan]", entry.summary, entry.needs, entry.paper)
    say.results().print(table)
    return 0
