"""The table: from run folders to numbers, and the numbers to the terminal and to Markdown."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import load_file, save_file

from limbeck.errors import InputError
from limbeck.report.layout import comparison_grid
from limbeck.report.statistics import holm, mcnemar, paired
from limbeck.report.table import build_table, rich_run, rich_table, table_markdown, write_table


def _arm(table, name):
    return next(arm for arm in table["arms"] if arm["arm"] == name)


def _values(folder, arm):
    cards = [folder / "arms" / arm / f"seed-{seed}" / "card.json" for seed in range(5)]
    return [json.loads(card.read_text())["metrics"]["test.accuracy"] for card in cards]


def test_rows_hold_every_seed_and_the_interval(comparison):
    table = build_table(comparison)
    kd = _arm(table, "kd")
    assert [arm["arm"] for arm in table["arms"]] == ["none", "kd", "rkd", "kd_tuned"]
    assert kd["metrics"]["test.accuracy"]["values"] == _values(comparison, "kd")
    assert kd["metrics"]["test.accuracy"]["mean"] == pytest.approx(
        np.mean(_values(comparison, "kd"))
    )
    assert kd["metrics"]["last.test.accuracy"]["ci95"] > 0
    assert kd["seeds"] == [0, 1, 2, 3, 4]
    assert kd["latency_ms"]["1"] == pytest.approx(0.134)  # the median over the seeds
    assert kd["method"]["name"] == "kd"
    assert "test.agreement" not in _arm(table, "none")["metrics"]


def test_arms_are_tested_against_both_rivals_and_corrected(comparison):
    table = build_table(comparison)
    plain = [paired(_values(comparison, arm), _values(comparison, "none")).p
             for arm in ("kd", "rkd", "kd_tuned")]  # fmt: skip
    found = [_arm(table, arm)["versus"]["none"] for arm in ("kd", "rkd", "kd_tuned")]
    assert [test["p"] for test in found] == pytest.approx(plain)
    assert [test["p_holm"] for test in found] == pytest.approx(holm(plain))
    assert set(_arm(table, "kd")["versus"]) == {"none", "kd_tuned"}
    assert set(_arm(table, "kd_tuned")["versus"]) == {"none"}
    assert _arm(table, "none")["versus"] == {}


def test_mcnemar_pools_the_predictions_of_all_seeds(comparison):
    def correct(arm):
        files = [
            comparison / "arms" / arm / f"seed-{s}" / "predictions.safetensors" for s in range(5)
        ]
        found = [load_file(file) for file in files]
        return np.concatenate([one["test.logits"].argmax(1) == one["test.y"] for one in found])

    found = _arm(build_table(comparison), "rkd")["versus"]["none"]["mcnemar_p"]
    assert found == pytest.approx(mcnemar(correct("rkd"), correct("none")))


def test_the_teacher_comes_from_the_card(comparison):
    teacher = build_table(comparison)["teacher"]
    assert teacher["parameters"] == 61_962
    assert teacher["latency_ms"] == {"1": 0.62, "256": 21.4}
    assert 0.97 < teacher["metrics"]["test.accuracy"] < 1


def test_several_teachers_count_as_one(tmp_path, make_run):
    for seed in range(2):
        make_run(tmp_path / "arms" / "kd" / f"seed-{seed}", "kd", seed)
        path = tmp_path / "arms" / "kd" / f"seed-{seed}" / "card.json"
        card = json.loads(path.read_text())
        card["teachers"] = [{"model": "a", "parameters": 10}, {"model": "b", "parameters": 20}]
        path.write_text(json.dumps(card))
    teacher = build_table(tmp_path)["teacher"]
    arrays = load_file(tmp_path / "arms" / "kd" / "seed-0" / "predictions.safetensors")
    right = (arrays["teacher.test.logits"].argmax(1) == arrays["test.y"]).mean()
    assert (teacher["model"], teacher["parameters"]) == ("a + b", 30)
    assert teacher["metrics"]["test.accuracy"] == pytest.approx(right)


def test_unfinished_runs_and_unmatched_seeds_are_left_out(tmp_path, make_comparison):
    folder = make_comparison(tmp_path / "c", seeds=3)
    log = folder / "arms" / "kd" / "seed-2" / "metrics.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-1]) + '{"event": "fin')
    shutil.rmtree(folder / "arms" / "rkd" / "seed-1")
    shutil.rmtree(folder / "arms" / "rkd" / "seed-2")
    table = build_table(folder)
    assert _arm(table, "kd")["seeds"] == [0, 1]
    assert _arm(table, "rkd")["versus"] == {}
    assert _arm(table, "rkd")["metrics"]["test.accuracy"]["ci95"] is None


def test_no_mcnemar_where_the_samples_differ(tmp_path, make_comparison):
    folder = make_comparison(tmp_path / "c", seeds=2)
    path = folder / "arms" / "kd" / "seed-0" / "predictions.safetensors"
    arrays = load_file(path)
    save_file(arrays | {"test.y": np.roll(arrays["test.y"], 1)}, path)
    assert _arm(build_table(folder), "kd")["versus"]["none"]["mcnemar_p"] is None


def test_bad_folders_and_metrics_are_named(tmp_path, comparison):
    with pytest.raises(InputError, match="no finished run"):
        build_table(tmp_path)
    with pytest.raises(InputError, match=r"'test.acuracy', did you mean 'test.accuracy'"):
        build_table(comparison, "acuracy")


def test_write_table_leaves_json_and_markdown(tmp_path, make_comparison):
    folder = make_comparison(tmp_path / "c", seeds=2)
    table = write_table(folder)
    assert json.loads((folder / "table.json").read_text()) == table
    assert (folder / "table.md").read_text() == table_markdown(table)


def test_markdown_is_a_table_of_equal_rows(comparison):
    text = table_markdown(build_table(comparison))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1
    assert [row.split("|")[1].strip() for row in rows[2:]] == [
        "teacher",
        "none",
        "kd",
        "rkd",
        "kd_tuned",
    ]
    assert text.startswith("**kd_tuned (+3.56 points")


def _printed(table, **options):
    file = io.StringIO()
    Console(file=file, width=120, **options).print(table)
    return file.getvalue()


def test_terminal_colors_winners_and_losers(comparison):
    shown = rich_table(build_table(comparison))
    lines = _printed(shown, force_terminal=True, color_system="standard").splitlines()
    arms = ("none", "kd", "rkd", "kd_tuned")
    lines = {arm: next(x for x in lines if re.search(rf"{arm}(?!\w).*±", x)) for arm in arms}
    green, red = "\x1b[32m", "\x1b[31m"
    assert green in lines["kd_tuned"]
    assert red in lines["rkd"]
    assert green not in lines["kd"] + lines["none"]
    assert "▲" in lines["kd_tuned"]
    assert "▼" in lines["rkd"]


def test_terminal_does_not_read_names_as_markup(comparison):
    table = build_table(comparison)
    table["arms"][1]["arm"] = "[bold]kd[/]"
    assert "[bold]kd[/]" in _printed(rich_table(table))


def test_a_single_run_shows_its_metrics_by_split():
    metrics = {"val.accuracy": 0.9512, "test.accuracy": 0.9401, "test.nll": 0.2, "best.epoch": 12.0,
               "last.test.accuracy": 0.9401, "best.test.accuracy": 0.93,
               "test.my.module:score": 1234.5}  # fmt: skip
    text = _printed(rich_run(metrics))
    row = next(line for line in text.splitlines() if "accuracy" in line)
    assert row.split() == ["accuracy", "%", "95.12", "94.01"]
    assert "my.module:score" in text
    assert (
        "delivered: last epoch; best on validation was epoch 12 (test accuracy 93.0 %)"
        in text.splitlines()
    )
    kept = _printed(rich_run(metrics | {"last.test.accuracy": 0.92, "best.test.accuracy": 0.9401}))
    assert "delivered: epoch 12, best on validation; not the last epoch (test accuracy 92" in kept


def test_both_epochs_are_reported(comparison: Path) -> None:
    table = build_table(comparison)
    note = next(note for note in comparison_grid(table).notes if "best on validation" in note)
    for arm in table["arms"]:
        last, best = (
            f"{100 * arm['metrics'][f'{epoch}.test.accuracy']['mean']:.2f}"
            for epoch in ("last", "best")
        )
        assert f"{arm['arm']} {last} / {best}" in note
