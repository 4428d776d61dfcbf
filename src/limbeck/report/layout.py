"""The table as people see it: one set of cells for the terminal, for Markdown and for HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from limbeck.report import words
from limbeck.report.statistics import direction

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table as RichTable

_MARKS = {1: " ▲", -1: " ▼", 0: ""}


@dataclass(frozen=True)
class Line:
    """One row: its cells, and how it compares with the no-teacher arm (1 better, -1 worse)."""

    cells: tuple[str, ...]
    tone: int = 0


@dataclass(frozen=True)
class Grid:
    """A table in words; `notes` explain it."""

    headers: tuple[str, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()


def comparison_grid(table: Mapping[str, Any]) -> Grid:
    """The rows of a table, the teacher first."""
    metrics = _metrics(table)
    latencies = _batches(table)
    headers = [words.title(metric) for metric in metrics]
    headers += ["parameters", *(f"ms, batch {size}" for size in latencies)]
    lines = [_arm_line(arm, table, metrics, latencies) for arm in table["arms"]]
    tested = any("none" in arm["versus"] for arm in table["arms"])
    if tested:
        headers += ["Δ none", "Holm p"]
    if table["teacher"]:
        lines.insert(0, _teacher_line(table, metrics, latencies, tested))
    return Grid(("arm", *headers), tuple(lines), _notes(table, tested))


def _metrics(table: Mapping[str, Any]) -> list[str]:
    """The metric of the comparison, then the usual ones that an arm has."""
    present = {key for arm in table["arms"] for key in arm["metrics"]}
    usual = ["accuracy", "nll", "ece", "agreement"]
    wanted = dict.fromkeys([table["metric"], *usual])
    return [metric for metric in wanted if f"{table['split']}.{metric}" in present]


def _batches(table: Mapping[str, Any]) -> list[str]:
    sizes = {size for arm in table["arms"] for size in arm["latency_ms"]}
    return sorted(sizes, key=int)


def _arm_line(
    arm: Mapping[str, Any], table: Mapping[str, Any], metrics: Sequence[str], sizes: Sequence[str]
) -> Line:
    cells = [arm["arm"]]
    for metric in metrics:
        found = arm["metrics"].get(f"{table['split']}.{metric}", {"mean": None, "ci95": None})
        half = found["ci95"] if metric in (table["metric"], "accuracy") else None
        cells.append(words.interval(found["mean"], half, metric))
    cells.append(words.count(arm["parameters"]))
    cells += [words.milliseconds(arm["latency_ms"].get(size)) for size in sizes]
    versus = arm["versus"].get("none")
    tone = direction(versus, table["metric"])
    if versus:
        half = versus["high"] - versus["difference"]
        change = words.signed(versus["difference"], table["metric"])
        half_text = words.number(half, table["metric"])
        cells += [f"{change} ± {half_text}{_MARKS[tone]}", words.p_value(versus["p_holm"])]
    elif any("none" in other["versus"] for other in table["arms"]):
        cells += [words.NOTHING] * 2
    return Line(tuple(cells), tone)


def _teacher_line(
    table: Mapping[str, Any], metrics: Sequence[str], sizes: Sequence[str], tested: bool
) -> Line:
    teacher = table["teacher"]
    found = teacher.get("metrics") or {}
    cells = [words.number(found.get(f"{table['split']}.{metric}"), metric) for metric in metrics]
    latency = teacher.get("latency_ms") or {}
    cells += [words.count(teacher.get("parameters"))]
    cells += [words.milliseconds(latency.get(size)) for size in sizes]
    return Line(("teacher", *cells, *[words.NOTHING] * (2 * tested)))


def _notes(table: Mapping[str, Any], tested: bool) -> tuple[str, ...]:
    notes = []
    seeds = max(len(arm["seeds"]) for arm in table["arms"])
    if seeds > 1:
        split = words.place(table["split"])
        notes.append(
            f"Means over up to {seeds} seeds on the {split} split; ± is a 95 % t interval."
        )
    if tested:
        points = " in points" if table["metric"] in words.PERCENT else ""
        notes.append(
            f"Δ none: difference in {table['metric']}{points} to the no-teacher arm over the same "
            f"seeds; p of the paired t test, Holm-corrected over the arms. "
            f"▲ better, ▼ worse, with confidence (p < 0.05)."
        )
    return (*notes, *_epochs_note(table))


def _epochs_note(table: Mapping[str, Any]) -> tuple[str, ...]:
    """What the last epoch and the one that was best on validation reach, arm by arm."""
    keys = [f"{epoch}.{table['split']}.{table['metric']}" for epoch in ("last", "best")]
    if not all(key in arm["metrics"] for arm in table["arms"] for key in keys):
        return ()
    pairs = (
        " / ".join(words.number(arm["metrics"][key]["mean"], table["metric"]) for key in keys)
        for arm in table["arms"]
    )
    named = (f"{arm['arm']} {pair}" for arm, pair in zip(table["arms"], pairs, strict=True))
    title = words.sentence(words.title(table["metric"]))
    return (f"{title} of the last epoch / of the epoch best on validation: {', '.join(named)}.",)


def table_markdown(table: Mapping[str, Any]) -> str:
    """The table as GitHub-flavoured Markdown, the verdict above it."""
    grid = comparison_grid(table)
    rows = [grid.headers, ("---", *["---:"] * (len(grid.headers) - 1))]
    rows += [line.cells for line in grid.lines]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([f"**{table['verdict']}**", "", *lines, "", *grid.notes, ""])


def rich_table(table: Mapping[str, Any]) -> RichTable:
    """The table for the terminal: green better, red worse than no teacher, with confidence."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    grid = comparison_grid(table)
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    shown.caption, shown.caption_justify = "\n".join(grid.notes), "left"
    for position, header in enumerate(grid.headers):
        shown.add_column(_short(header), justify="right" if position else "left")
    for line in grid.lines:
        style = {1: "green", -1: "red"}.get(line.tone, "dim" if line.cells[0] == "teacher" else "")
        shown.add_row(*(Text(cell) for cell in line.cells), style=style)
    return shown


def _short(header: str) -> str:
    """A header narrow enough for ten columns in a terminal of 80."""
    known = {"parameters": "params", "agreement %": "agree\n%", "Holm p": "Holm\np"}
    return known.get(header, header.replace(", batch ", "\n@"))


def rich_run(metrics: Mapping[str, float]) -> Group:
    """The final metrics of one run for the terminal, a metric a line, a split a column.

    Args:
        metrics: by keys such as `test.accuracy` and `best.val.accuracy`.
    """
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    keys = [words.split_key(key) for key in metrics]
    places = [place for place in ("train", "val", "test", "data") if place in dict(keys)]
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    shown.add_column("metric")
    for place in places:
        shown.add_column(words.place(place), justify="right")
    for name in dict.fromkeys(name for place, name in keys if place in places):
        values = [metrics.get(f"{place}.{name}") for place in places]
        cells = (words.title(name), *(words.number(value, name) for value in values))
        shown.add_row(*(Text(cell) for cell in cells))
    return Group(shown, *_delivered(metrics))


def _delivered(metrics: Mapping[str, float]) -> list[str]:
    """A line that says which epoch the metrics are of, and what the other one reached."""
    if "best.epoch" not in metrics:
        return []
    last = all(metrics.get(f"last.{key}", value) == value for key, value in metrics.items())
    other = "best" if last else "last"
    key = next((key for key in ("test.accuracy", "val.accuracy") if key in metrics), "")
    found = metrics.get(f"{other}.{key}")
    reached = "" if found is None else f" ({words.place(key[:-9])} accuracy {100 * found:.1f} %)"
    epoch = f"{metrics['best.epoch']:.0f}"
    if last:
        return [f"delivered: last epoch; best on validation was epoch {epoch}{reached}"]
    return [f"delivered: epoch {epoch}, best on validation; not the last epoch{reached}"]
