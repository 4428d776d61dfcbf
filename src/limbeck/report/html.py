"""The report: one HTML page that needs no network, no script and no clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck.recipe.folder import write_text
from limbeck.report import words
from limbeck.report.disagreement import Group, Images, Texts, disagreements
from limbeck.report.evidence import pictures
from limbeck.report.ink import inks, swatch
from limbeck.report.layout import comparison_grid
from limbeck.report.provenance import provenance
from limbeck.report.reading import Run, read_arms, read_recipe, read_run
from limbeck.report.sections import sections
from limbeck.report.summary import best_arm, run_verdict, tiles
from limbeck.report.table import Table, arms_table


def write_report(
    folder: str | Path,
    *,
    images: Images | None = None,
    texts: Texts | None = None,
    pool: Images | None = None,
) -> Path:
    """Write `report.html` into a run folder or a comparison folder.

    The page is a function of the folder's files (and of `images` and `texts`) alone: the same
    files give the same bytes.

    Args:
        folder: holds `metrics.jsonl` of one run, or `arms/ARM/seed-N/`.
        images: gives samples of the test split (of the validation split where there is no test
            split) by position, as an array (N, C, H, W) in [0, 1]; None where data are no images.
        texts: gives the same samples in words, for texts and tables.
        pool: gives images of unlabelled samples by id.

    Returns:
        The path of the page.

    Raises:
        InputError: the folder is neither, or holds no finished run.
    """
    folder = Path(folder)
    page = _comparison(folder) if (folder / "arms").is_dir() else _run(folder)
    run = page.arms[best_arm(page.table)][0]
    groups = disagreements(run, run.card["classes"], images, texts)
    path = folder / "report.html"
    context = _context(folder, page, groups) | {"named": pictures(run, pool)}
    write_text(path, _render(context))
    return path


@dataclass(frozen=True)
class _Page:
    """What differs between a run and a comparison."""

    kind: str
    title: str
    verdict: str
    arms: Mapping[str, Sequence[Run]]
    table: Table


def _comparison(folder: Path) -> _Page:
    arms = read_arms(folder)
    table = arms_table(arms, _metric(folder, "compare"))
    seeds = max(len(runs) for runs in arms.values())
    source = _source(next(iter(arms.values()))[0])
    title = f"{len(arms)} arms × {seeds} seeds on {source}"
    return _Page("comparison", title, table["verdict"], arms, table)


def _run(folder: Path) -> _Page:
    """One run is a comparison of one arm."""
    run = read_run(folder)
    arms = {"student": [run]}
    table = arms_table(arms, _metric(folder, "training"))
    method = words.method(run.card.get("method")) if run.teachers else "no teacher"
    return _Page(
        "run", f"{method} on {_source(run)}, seed {run.seed}", run_verdict(table), arms, table
    )


def _metric(folder: Path, part: str) -> str:
    return str((read_recipe(folder).get(part) or {}).get("metric", "accuracy"))


def _source(run: Run) -> str:
    """What the data are called."""
    facts = run.card.get("data") or {}
    return str(facts.get("name") or facts.get("source") or "data")


def _context(folder: Path, page: _Page, groups: Sequence[Group]) -> dict[str, Any]:
    """What the template reads."""
    ink = inks([*page.arms, *(["teacher"] if page.table["teacher"] else [])])
    shown = page.arms[best_arm(page.table)][0]
    return {
        "kind": page.kind,
        "title": page.title,
        "verdict": page.verdict,
        "tiles": tiles(page.table),
        "grid": comparison_grid(page.table),
        "swatches": {arm: swatch(look) for arm, look in ink.items()},
        "sections": sections(page.arms, page.table, ink),
        "groups": groups,
        "long_names": max(map(len, map(str, shown.card["classes"])), default=0) > 6,
        "disagreement": f"{best_arm(page.table)} with seed {shown.seed} on the "
        f"{len(shown.correct):,} samples of the {words.place(shown.split)} split",
        "provenance": provenance(folder, page.arms, page.table),
        "version": shown.card["limbeck"],
    }


def _render(page: Mapping[str, Any]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("limbeck.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(page)
