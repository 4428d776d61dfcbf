"""What the command prints: results on standard output, everything else on standard error."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from limbeck.recipe import yaml

if TYPE_CHECKING:
    from limbeck.methods.base import Method


def first_rank() -> bool:
    """Whether this process speaks; of several ranks only the first does."""
    return os.environ.get("RANK", "0") == "0"


def results() -> Console:
    """Standard output; quiet on all ranks but the first."""
    return Console(quiet=not first_rank(), highlight=False)


def notes() -> Console:
    """Standard error, for what is not a result."""
    return Console(stderr=True, quiet=not first_rank(), highlight=False)


def as_json(value: Any) -> None:
    """One JSON object on standard output."""
    if first_rank():
        sys.stdout.write(json.dumps(value, indent=2, sort_keys=True, default=str) + "\n")


def recipe(options: argparse.Namespace, resolved: dict[str, Any]) -> None:
    """The resolved recipe of a dry run, as YAML or as `--json`."""
    if options.json:
        as_json(resolved)
    elif first_rank():
        yaml.show(resolved)


def chosen(method: Method) -> None:
    """What the method chose: its pairs of taps as a table, all else line by line."""
    from limbeck.methods.base import TapPair

    table = Table("term", "student", "shape", "teacher", "shape", box=SIMPLE_HEAD, pad_edge=False)
    for told in method.describe():
        if isinstance(told, TapPair):
            table.add_row(*map(Text, told.cells))
        else:
            notes().print(told)
    if table.row_count:
        notes().print(table)


def interrupted(verb: str, folder: Path, typed: list[str]) -> None:
    """Say how to go on."""
    if first_rank():
        command = shlex.join(["limbeck", verb, "--resume", str(folder), *typed])
        sys.stderr.write(f"\nlimbeck: interrupted; go on with\n  {command}\n")
