"""`limbeck report`: the HTML page of a run or a comparison, written again."""

from __future__ import annotations

import argparse
from pathlib import Path

from limbeck.cli import say
from limbeck.cli.arguments import Overrides
from limbeck.errors import InputError


def run(options: argparse.Namespace, overrides: Overrides) -> int:
    """Write the report and say where it is."""
    folder = Path(options.run)
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; name a run or a comparison")
    from limbeck.runs.report import report

    path = report(folder)
    if options.json:
        say.as_json({"report": str(path)})
    else:
        say.results().print(f"report  {path}", soft_wrap=True)
    return 0
