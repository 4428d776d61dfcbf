"""The table of a comparison: arms by seeds, with intervals and paired tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from limbeck.errors import InputError, nearest
from limbeck.recipe.folder import write_json, write_text
from limbeck.report.layout import rich_run, rich_table, table_markdown
from limbeck.report.reading import Run, read_arms
from limbeck.report.scores import scores
from limbeck.report.statistics import holm, mcnemar, mean_interval, paired, verdict

__all__ = ["build_table", "rich_run", "rich_table", "table_markdown", "write_table"]

Table = dict[str, Any]
"""The content of `table.json`."""

RIVALS = ("none", "kd_tuned")


def build_table(folder: str | Path, metric: str = "accuracy") -> Table:
    """The table of a comparison folder; runs that have not come to their end are left out.

    Args:
        folder: holds `arms/ARM/seed-N/`.
        metric: the metric that the paired tests are made on.

    Returns:
        `metric`, `split`, `teacher`, `arms` (each with its `metrics`: mean, half-width `ci95`
        and `values` by seed, and `versus`: the paired test against `none` and `kd_tuned`,
        Holm-corrected over the arms) and `verdict`.

    Raises:
        InputError: the folder holds no finished run, or a run has no such metric.
    """
    return arms_table(read_arms(Path(folder)), metric)


def write_table(folder: str | Path, metric: str = "accuracy") -> Table:
    """Build the table of a comparison and leave it there as `table.json` and `table.md`."""
    table = build_table(folder, metric)
    write_json(Path(folder) / "table.json", table)
    write_text(Path(folder) / "table.md", table_markdown(table))
    return table


def arms_table(arms: Mapping[str, Sequence[Run]], metric: str) -> Table:
    """The table of runs that were read already, by arm; see `build_table`."""
    runs = [run for group in arms.values() for run in group]
    _check_metric(runs, metric)
    rows = [_row(name, group, _alike(group[0], runs)) for name, group in arms.items()]
    for rival in RIVALS:
        if rival in arms:
            _test(rows, arms, rival, metric)
    return {
        "metric": metric,
        "split": runs[0].split,
        "teacher": next((_teacher(run) for run in runs if run.teachers), None),
        "arms": rows,
        "verdict": verdict(rows, metric),
    }


def _check_metric(runs: Sequence[Run], metric: str) -> None:
    key = f"{runs[0].split}.{metric}"
    for run in runs:
        if key not in run.metrics:
            raise InputError(
                f"the run {run.folder} has no metric {key!r}{nearest(key, run.metrics)}; it has "
                f"{', '.join(run.metrics)}"
            )


def _alike(run: Run, runs: Sequence[Run]) -> list[Run]:
    """The runs with the same student: one architecture has one latency, whatever taught it."""
    key = _architecture(run)
    return [other for other in runs if _architecture(other) == key]


def _architecture(run: Run) -> tuple[Any, ...]:
    model = run.card["model"]
    return model["source"], model["parameters"], model["bytes"]


def _row(name: str, runs: Sequence[Run], alike: Sequence[Run]) -> dict[str, Any]:
    card = runs[0].card
    return {
        "arm": name,
        "student": card["model"]["source"],
        "method": card.get("method"),
        "seeds": [run.seed for run in runs],
        "parameters": card["model"]["parameters"],
        "bytes": card["model"]["bytes"],
        "latency_ms": _latency([run.card["model"].get("latency_ms") or {} for run in alike]),
        "metrics": {key: _summary(runs, key) for key in _shared_metrics(runs)},
        "versus": {},
    }


def _shared_metrics(runs: Sequence[Run]) -> list[str]:
    """The metrics that all runs have, in the order of the first."""
    return [key for key in runs[0].metrics if all(key in run.metrics for run in runs)]


def _summary(runs: Sequence[Run], key: str) -> dict[str, Any]:
    values = [run.metrics[key] for run in runs]
    mean, half = mean_interval(values)
    return {"mean": mean, "ci95": half, "values": values}


def _latency(measured: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Median over the runs, by batch size."""
    sizes = {size: [one[size] for one in measured if size in one] for size in measured[0]}
    return {size: median(values) for size, values in sizes.items()}


def _teacher(run: Run) -> dict[str, Any]:
    """The run's teacher; several count as one, whose size and latency are their sums."""
    teachers = run.teachers
    latencies = [one.get("latency_ms") or {} for one in teachers]
    sizes = [size for size in latencies[0] if all(size in one for one in latencies)]
    known = teachers[0].get("metrics") if len(teachers) == 1 else None
    return {
        "model": " + ".join(one["model"] for one in teachers),
        "parameters": sum(one["parameters"] for one in teachers),
        "metrics": known or _teacher_scores(run),
        "latency_ms": {size: sum(one[size] for one in latencies) for size in sizes},
    }


def _teacher_scores(run: Run) -> dict[str, float]:
    logits, labels = run.logits("teacher"), run.labels
    if logits is None or labels is None:
        return {}
    return {f"{run.split}.{key}": value for key, value in scores(logits, labels).items()}


def _test(
    rows: Sequence[dict[str, Any]], arms: Mapping[str, Sequence[Run]], rival: str, metric: str
) -> None:
    """Add the paired tests against `rival` to the rows, corrected over the arms tested."""
    tested = {}
    for row in rows:
        if row["arm"] not in RIVALS[: RIVALS.index(rival) + 1]:
            test = _versus(arms[row["arm"]], arms[rival], metric)
            if test:
                tested[row["arm"]] = test
    corrected = holm([test["p"] for test in tested.values()])
    for test, p in zip(tested.values(), corrected, strict=True):
        test["p_holm"] = p
    for row in rows:
        if row["arm"] in tested:
            row["versus"][rival] = tested[row["arm"]]


def _versus(runs: Sequence[Run], rivals: Sequence[Run], metric: str) -> dict[str, Any] | None:
    """Test over the seeds that both arms have; None where there are fewer than two."""
    by_seed = {run.seed: run for run in rivals}
    pairs = [(run, by_seed[run.seed]) for run in runs if run.seed in by_seed]
    key = f"{runs[0].split}.{metric}"
    if len(pairs) < 2:
        return None
    test = paired([a.metrics[key] for a, _ in pairs], [b.metrics[key] for _, b in pairs])
    return {
        "difference": test.difference,
        "low": test.low,
        "high": test.high,
        "p": test.p,
        "p_holm": test.p,
        "mcnemar_p": _pooled_mcnemar(pairs),
    }


def _pooled_mcnemar(pairs: Sequence[tuple[Run, Run]]) -> float | None:
    """McNemar over the predictions of all seeds; None where they are not of the same samples."""
    for ours, theirs in pairs:
        if ours.labels is None or theirs.labels is None:
            return None
        if not np.array_equal(ours.labels, theirs.labels):
            return None
    correct = np.concatenate([run.correct for run, _ in pairs])
    return mcnemar(correct, np.concatenate([run.correct for _, run in pairs]))
