"""`limbeck store`: what a store holds, and whether it still holds what it should."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from limbeck.cli import say
from limbeck.cli.arguments import Overrides

if TYPE_CHECKING:
    from rich.table import Table

    from limbeck.store.reader import TeacherStore


def run(options: argparse.Namespace, overrides: Overrides) -> int:
    """Open the store; verify it where that is asked for."""
    from limbeck.store.reader import TeacherStore

    store = TeacherStore(options.path)
    checks = _verify(store, options.rows) if options.what == "verify" else {}
    if options.json:
        say.as_json({"path": str(store.path), **_facts(store), **checks})
        return 0
    output = say.results()
    output.print(table(store))
    for name, words in checks.items():
        output.print(f"[green]{name}[/green]  {words}")
    return 0


def _verify(store: TeacherStore, rows: int) -> dict[str, str]:
    """Checksums, then some rows through the teacher, where its files are here.

    Raises:
        InputError: the store is damaged, or its teacher says something else.
    """
    from limbeck.runs.stores import run_again
    from limbeck.store.verify import check_bytes

    check_bytes(store)
    files = len(store.manifest.shards) + 2
    found = run_again(store, rows)
    said = (
        "its teacher is not here: no row was run again"
        if found is None
        else f"{found.rows} outputs run again, largest difference {found.largest:.1e} of their size"
    )
    return {"bytes": f"{files} files are what was written", "teacher": said}


def _facts(store: TeacherStore) -> dict[str, Any]:
    manifest = store.manifest
    return {
        "teacher": manifest.author.name,
        "samples": {part.name: part.samples for part in manifest.parts},
        "views": manifest.replay.count,
        "augmentation": manifest.replay.ops,
        "classes": len(manifest.classes),
        "kept": "all logits" if manifest.top_k is None else f"top {manifest.top_k}",
        "dtype": manifest.dtype,
        "features": manifest.features,
        "skipped": len(manifest.skipped),
        "bytes": sum(path.stat().st_size for path in store.path.glob("*.safetensors")),
    }


def table(store: TeacherStore) -> Table:
    """The facts about a store, a row each."""
    from rich.table import Table

    rows = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    rows.add_row("[bold]store[/bold]", str(store.path))
    for key, value in _facts(store).items():
        if isinstance(value, dict):
            value = ", ".join(
                f"{name} {count:,}" if isinstance(count, int) else f"{name} {count}"
                for name, count in value.items()
            )
        if value or (value == 0 and key == "bytes"):
            rows.add_row(key, f"{value:,}" if isinstance(value, int) else str(value))
    return rows
