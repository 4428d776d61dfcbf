"""`limbeck methods`: every method in one line."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from limbeck.cli import say
from limbeck.cli.arguments import Overrides
from limbeck.methods.entry import Entry
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
    show(methods)
    return 0


def show(methods: Mapping[str, Entry]) -> None:
    """A line a method, or two where the terminal is too narrow for one."""
    output = say.results()
    rows = {name: (entry.summary, entry.needs, entry.paper) for name, entry in methods.items()}
    first = max(map(len, rows))
    widths = [max(len(row[column]) for row in rows.values()) for column in range(3)]
    narrow = output.is_terminal and output.width < first + sum(widths) + 6
    for name, (summary, needs, paper) in rows.items():
        head = f"[cyan]{name:{first}}[/cyan]  {summary:{widths[0]}}"
        rest = f"[dim]{f'{needs:{widths[1]}}  {paper}'.rstrip()}[/dim]"
        between = f"\n{'':{first}}  " if narrow else "  "
        output.print(f"{head.rstrip() if narrow else head}{between}{rest}", soft_wrap=True)
