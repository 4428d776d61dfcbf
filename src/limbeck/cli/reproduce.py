"""`limbeck reproduce`: a paper's claims, measured again."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.table import Table

from limbeck.cli import say
from limbeck.cli.arguments import Overrides
from limbeck.errors import InputError
from limbeck.reproduce import NAMES, reproduce
from limbeck.reproduce.claims import Claim, Evidence, Scale


def run(options: argparse.Namespace, overrides: Overrides) -> int:
    """Measure, print the claims, and return 1 where a line was missed."""
    if options.name is None:
        _list()
        return 0
    if options.seeds is not None and options.seeds < 1:
        raise InputError(f"--seeds must be 1 or more, got {options.seeds}")
    if not 0 < options.share <= 1:
        raise InputError(f"--share must lie in (0, 1], got {options.share:g}")
    if options.workers < 1:
        raise InputError(f"--workers must be 1 or more, got {options.workers}")
    folder = Path(options.out or f"runs/reproduce-{options.name}")
    scale = Scale(
        out=folder,
        seeds=options.seeds,
        full=options.full,
        device=options.scale,
        share=options.share,
        workers=options.workers,
        report=say.notes().print,
    )
    evidence = reproduce(options.name, scale)
    _write(folder, evidence)
    if options.json:
        say.as_json(evidence.as_json())
    else:
        _show(evidence, folder)
    return 0 if evidence.passed else 1


def _list() -> None:
    for name, paper in NAMES.items():
        say.results().print(f"[cyan]{name:20}[/cyan] {paper}")


def _write(folder: Path, evidence: Evidence) -> None:
    """Keep the result beside the runs."""
    import json

    from limbeck.recipe.folder import write_bytes

    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps(evidence.as_json(), indent=2)
    write_bytes(folder / "evidence.json", f"{content}\n".encode())


def _show(evidence: Evidence, folder: Path) -> None:
    table = Table(title=evidence.name, title_justify="left")
    for column in ("claim", "ours", "line", "", "paper"):
        table.add_column(column)
    for claim in evidence.claims:
        table.add_row(claim.claim, _value(claim), claim.line, _mark(claim), claim.paper)
    output = say.results()
    output.print(table)
    output.print(f"wrote   {folder / 'evidence.json'}")


def _value(claim: Claim) -> str:
    return f"{claim.ours:.3g}" + (f" ± {claim.spread:.2g}" if claim.spread else "")


def _mark(claim: Claim) -> str:
    return {True: "[green]pass[/green]", False: "[red]missed[/red]", None: ""}[claim.passed]
