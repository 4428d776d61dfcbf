"""`limbeck diagnose`: checks and forecasts before a long training."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from limbeck.cli import say
from limbeck.cli.arguments import Overrides
from limbeck.cli.recipes import read_recipe
from limbeck.errors import InputError

if TYPE_CHECKING:
    from limbeck.diagnosis import Diagnosis

MARKS = {"good": ("✓", "green"), "note": ("·", "dim"), "warning": ("!", "bold red")}


def run(options: argparse.Namespace, overrides: Overrides) -> int:
    """Diagnose, print the tables, and with --out write the page and the figures."""
    recipe = read_recipe(options, overrides)
    if not recipe.teachers:
        raise InputError("diagnose compares a student with its teacher: name one with --teacher")
    if not options.memory > 0:
        raise InputError(f"--memory is {options.memory:g}: GiB, above 0")
    if options.dry_run:
        say.recipe(options, recipe.model_dump(mode="json"))
        return 0
    from limbeck.runs.diagnose import diagnose_job
    from limbeck.runs.job import make_job
    from limbeck.runs.progress import bars

    with bars() as display, display.run("diagnose") as report:
        found = diagnose_job(
            make_job(recipe),
            samples=options.samples,
            memory=options.memory * 2**30,
            skip=tuple(options.skip),
            report=report,
        )
    if options.json:
        say.as_json(found.as_json())
    else:
        show(found, say.results())
    if recipe.out:
        write(found, Path(recipe.out))
    return 0


def show(found: Diagnosis, output: Console) -> None:
    """The tables and the verdict."""
    output.print(preflight_table(found))
    if found.difficulty is not None:
        output.print(grid_table(found))
    if found.size is not None:
        output.print(size_table(found))
    if found.start is not None:
        output.print(start_table(found))
    for note in found.notes:
        output.print(Text(note, "dim"))
    style = {True: "bold green", False: "bold yellow", None: "bold"}[found.helps]
    output.print(Text(found.words, style))
    if found.method is not None:
        flags = " ".join(f"--method.{key} {value:g}" for key, value in _numbers(found))
        output.print(f"limbeck distill ... --method kd {flags}", soft_wrap=True)


def _numbers(found: Diagnosis) -> list[tuple[str, float]]:
    return [(key, value) for key, value in (found.method or {}).items() if key != "name"]


def preflight_table(found: Diagnosis) -> Table:
    """A row a check."""
    table = Table("", "pre-flight", "", box=SIMPLE_HEAD)
    for finding in found.preflight:
        mark, style = MARKS[finding.level]
        table.add_row(Text(mark, style), finding.name, Text(finding.words))
    return table


def grid_table(found: Diagnosis) -> Table:
    """Predicted errors: a row a soft ratio, a column a temperature; the best one marked."""
    grid = found.difficulty
    if grid is None:
        raise InputError("there is no grid")
    temperatures = sorted({cell.temperature for cell in grid.cells})
    columns = [f"T = {temperature:g}" for temperature in temperatures]
    table = Table("soft ratio", *columns, "I(n)", title="predicted error", box=SIMPLE_HEAD)
    for ratio in sorted({cell.soft_ratio for cell in grid.cells}, reverse=True):
        row = {cell.temperature: cell for cell in grid.cells if cell.soft_ratio == ratio}
        cells = [
            Text(f"{row[t].error:.1%}", "bold green" if row[t] == grid.best else "")
            for t in temperatures
        ]
        table.add_row(f"{ratio:g}", *cells, f"{row[temperatures[-1]].inefficiency:.2f}")
    return table


def size_table(found: Diagnosis) -> Table:
    """Nodes of each layer that a spectral training needs."""
    size = found.size or {}
    title = f"size: {size['needed']} of {size['nodes']} nodes, knee x{size['jump']:.1f}"
    table = Table("layer", "nodes", "needed", title=title, box=SIMPLE_HEAD)
    for row in size["layers"]:
        table.add_row(row["layer"], str(row["nodes"]), str(row["alive"]))
    return table


def start_table(found: Diagnosis) -> Table:
    """Held-out distance from the teacher's logits by start."""
    table = Table("start", "distance", title="before any training", box=SIMPLE_HEAD)
    for name, loss in (found.start or {}).items():
        table.add_row("random" if name == "none" else name, f"{loss:.4g}")
    return table


def write(found: Diagnosis, folder: Path) -> None:
    """`diagnosis.json`, and the tables as a page."""
    import io

    from limbeck.recipe.folder import write_json, write_text

    write_json(folder / "diagnosis.json", found.as_json())
    record = Console(record=True, width=110, file=io.StringIO())
    show(found, record)
    write_text(folder / "diagnosis.html", record.export_html())
    say.notes().print(f"wrote   {folder / 'diagnosis.html'}", soft_wrap=True)
