"""Weights, norms and cosines of several teachers, drawn from a run's log."""

from __future__ import annotations

from pathlib import Path

from limbeck.report import heard
from limbeck.report.reading import Run
from limbeck.report.sections import _heard


def run(figures: dict[str, object]) -> Run:
    lines = tuple({"event": "train", "step": step, "figures": figures} for step in (10, 20))
    card = {"seed": 0, "teachers": [{"model": "a"}, {"model": "b"}, {"model": "c"}]}
    return Run(Path(), card, lines)


FIGURES = {
    "weights": [0.5, 0.5, 0.0],
    "norms": [0.1, 0.2, 0.3],
    "cosines": [[1.0, 0.8, -0.4], [0.8, 1.0, -0.2], [-0.4, -0.2, 1.0]],
}


def test_one_line_a_teacher() -> None:
    drawn = list(heard.drawings("adaptive", run(FIGURES)))
    assert len(drawn) == 3
    for picture, caption in drawn:
        assert all(f">{name}</text>" in picture for name in ("0: a", "1: b", "2: c"))
        assert caption.endswith("(adaptive).")


def test_agreement_is_the_mean_cosine_with_the_others() -> None:
    import numpy as np

    found = heard._agreement(np.asarray([FIGURES["cosines"]]))
    np.testing.assert_allclose(found, [[0.2, 0.3, -0.3]])


def test_runs_without_such_figures_have_no_section() -> None:
    assert not list(heard.drawings("kd", run({"stuck": 0.0})))
    assert _heard({"kd": [run({})]}).figures == ()
