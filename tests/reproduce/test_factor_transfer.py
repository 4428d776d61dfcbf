"""The reproduction itself: what it judges, and one small run of the whole where the data are."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from limbeck.cli.main import main
from limbeck.data.named import VARIABLE, cache_folder
from limbeck.reproduce import factor_transfer as ft


def test_networks_have_the_tap_and_depend_on_the_seed() -> None:
    teacher, student = ft.network(ft.TEACHER, 0), ft.network(ft.STUDENT, 0)
    x = torch.zeros(2, 1, 28, 28)
    assert teacher.features(x).shape == (2, 96, 4, 4)
    assert student.features(x).shape == (2, 32, 4, 4)
    assert student(x).shape == (2, 10)
    assert torch.equal(student.linear.weight, ft.network(ft.STUDENT, 0).linear.weight)
    assert not torch.equal(student.linear.weight, ft.network(ft.STUDENT, 1).linear.weight)


def has_fashion() -> bool:
    places = [os.environ.get(VARIABLE), cache_folder()]
    return any((Path(place) / "fashion-mnist.npz").is_file() for place in places if place)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the paraphraser")
@pytest.mark.skipif(not has_fashion(), reason="Fashion-MNIST is not here")
def test_a_small_run_of_the_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = ["reproduce", "factor-transfer", "--seeds", "1", "--share", "0.05", "--workers", "1"]
    status = main([*words, "--out", str(out), "--json"])
    evidence = json.loads(capsys.readouterr().out)
    assert evidence == json.loads((out / "evidence.json").read_text())
    assert status == (0 if evidence["passed"] else 1)
    claims = {claim["claim"]: claim for claim in evidence["claims"]}
    assert {f"accuracy of {arm}" for arm in ft.ARMS} <= set(claims)
    exact = next(claim for name, claim in claims.items() if name.startswith("logits of the"))
    assert exact["pass"] is True
    assert exact["ours"] == 0
