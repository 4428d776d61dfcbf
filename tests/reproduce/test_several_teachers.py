"""The two reproductions of several teachers: what they judge, and one small run where data are."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from limbeck.cli.main import main
from limbeck.data.named import VARIABLE, cache_folder
from limbeck.reproduce import adaptive_ensemble as ae
from limbeck.reproduce import ensemble_diversity as ed


def adaptive(**changes: dict[str, object]) -> dict[str, list[dict[str, object]]]:
    """Runs of one seed in which every claim holds, with these changes to an arm."""
    plain = {"accuracy": 83.0, "nll": 0.50, "last_weight": 0.25, "warned": []}
    runs: dict[str, dict[str, object]] = {arm: dict(plain) for arm in ae.ARMS}
    runs["bad gated adaptive"] |= {"nll": 0.46, "last_weight": 0.0, "warned": [3]}
    runs["bad adaptive, batch means"] |= {"accuracy": 81.0, "nll": 0.6}
    runs["no labels, bad adaptive"] |= {"accuracy": 50.0}
    runs["no labels, bad gated mean"] |= {"accuracy": 83.5, "nll": 0.45}
    for arm, change in changes.items():
        runs[arm.replace("_", " ")] |= change
    return {arm: [run] for arm, run in runs.items()}


def missed(claims: list[ae.Claim]) -> list[str]:
    return [claim.claim for claim in claims if claim.passed is False]


def test_adaptive_ensemble_is_judged_by_its_lines() -> None:
    assert missed(ae.judge(adaptive())) == []
    heard = adaptive(bad_gated_adaptive={"last_weight": 0.1, "warned": []})
    assert missed(ae.judge(heard)) == [
        "bad: weight of the bad teacher behind the gate",
        "bad: the bad teacher is named, share of seeds",
    ]
    wrong = adaptive(clean_gated_adaptive={"warned": [1]})
    assert missed(ae.judge(wrong)) == ["good teachers that the gate left out"]


def test_ensemble_diversity_is_judged_by_its_lines() -> None:
    names = ("accuracy", "nll", "disagreement", "member kl", "member kl to others", "ensemble kl")
    kd = dict(zip(names, (0.84, 0.55, 0.057, 0.115, 0.13, 0.048), strict=True))
    noisy = kd | {"member kl": 0.10, "ensemble kl": 0.043}
    moved = kd | {"disagreement": 0.062, "member kl": 0.07, "ensemble kl": 0.03}
    teachers = [{"train": 0.02, "moved": 0.13, "test": 0.13}]
    runs = {"kd": [kd], "gaussian": [noisy], "conf_ods": [moved]}
    assert missed(ed.judge(runs, teachers)) == []
    worse = {**runs, "conf_ods": [moved | {"member kl": 0.14}]}
    assert missed(ed.judge(worse, teachers)) == [
        "member kl, conf_ods over kd",
        "member kl, conf_ods over gaussian",
        "KL to the own teacher less that to the others",
    ]


def has_fashion() -> bool:
    places = [os.environ.get(VARIABLE), cache_folder()]
    return any((Path(place) / "fashion-mnist.npz").is_file() for place in places if place)


@pytest.mark.slow
@pytest.mark.skipif(not has_fashion(), reason="Fashion-MNIST is not here")
@pytest.mark.parametrize("name", ["adaptive-ensemble", "ensemble-diversity"])
def test_a_small_run_of_the_whole(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["reproduce", name, "--seeds", "1", "--share", "0.02", "--workers", "1"]
    status = main([*words, "--out", str(tmp_path / "out"), "--json"])
    evidence = json.loads(capsys.readouterr().out)
    assert evidence == json.loads((tmp_path / "out" / "evidence.json").read_text())
    assert status == (0 if evidence["passed"] else 1)
    assert len(evidence["claims"]) > 20
