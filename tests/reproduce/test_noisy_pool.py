"""Reproductions of a noisy teacher and a pool: planted teachers, lines, and a small run each."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from limbeck.cli.main import main
from limbeck.data.named import VARIABLE, cache_folder
from limbeck.reproduce import slam, weighted
from limbeck.reproduce.claims import Scale
from limbeck.reproduce.noisy_pool import (
    Case,
    Gains,
    Planted,
    bounded,
    error_rate,
    gain_claim,
    network,
    plant,
)


@pytest.mark.parametrize("classes", [4, 10])
@pytest.mark.parametrize("kind", ["margin", "step", "cls"])
def test_a_planted_teacher_errs_as_it_was_told(classes: int, kind: str) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(classes, size=20_000)
    probs = plant(y, classes, 0.2, kind, rng)
    assert np.allclose(probs.sum(1), 1)
    assert probs.min() > 0
    guess = probs.argmax(1)
    assert (guess != y).mean() == pytest.approx(0.2, abs=0.015)
    top = np.sort(probs, 1)
    margin = top[:, -1] - top[:, -2]
    rate = error_rate(margin, y, classes, 0.2, kind)
    for low, high in ((0.0, 0.4), (0.4, 0.7), (0.7, 1.0)):
        some = (margin >= low) & (margin < high)
        assert (guess != y)[some].mean() == pytest.approx(rate[some].mean(), abs=0.03)
    wrong = guess != y
    assert (probs[wrong, y[wrong]] >= top[wrong, -2] - 1e-9).all()  # the truth comes second


def test_planted_outputs_are_found_by_content() -> None:
    x, logits = torch.randn(50, 3), torch.randn(50, 4)
    rows = torch.randperm(50)
    assert torch.equal(Planted(x, logits)(x[rows]), logits[rows])


def test_students_depend_on_the_seed_alone() -> None:
    one, same, other = network(5, 3, 0), network(5, 3, 0), network(5, 3, 1)
    assert torch.equal(one[0].weight, same[0].weight)
    assert not torch.equal(one[0].weight, other[0].weight)
    assert one[0].weight.abs().max() <= 0.6 * (6 / 5) ** 0.5


def test_a_smaller_case_keeps_its_validation_samples() -> None:
    case = Case("agnews", "step", ("plain",)).scaled(0.05)
    assert (case.pool, case.val, case.epochs) == (300, 1_000, 1)
    assert case.scaled(0.05).pool == 200


def test_a_gain_counts_the_seeds_that_gain() -> None:
    gains = Gains({"slam": [3.0, 3.0, 3.0, 3.0, 1.0], "plain": [1.0, 1.0, 1.0, 1.0, 2.0]})
    values = gains.over("slam", "plain")
    assert values == [2.0, 2.0, 2.0, 2.0, -1.0]
    assert gain_claim("c", values, 1.0).passed
    assert not gain_claim("c", values, 1.5).passed
    assert not gain_claim("c", [9.0, 9.0, 9.0, -1.0, -1.0], 1.0).passed
    assert bounded("c", 0.3, 0.1, 0.5).passed
    assert not bounded("c", float("nan"), 0.1, 0.5).passed


def test_the_identity_holds() -> None:
    assert all(claim.passed for claim in weighted.identity_claims(draws=500))


def test_the_correction_of_a_shift_is_as_good_as_was_measured() -> None:
    assert all(claim.passed for claim in slam.shift_claims(0.2))


def test_the_perceptron_keeps_its_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slam, "CELLS", ((0.2, 0.2),))
    bound, *_ = slam.halfspace_claims(Scale(tmp_path, share=0.05))
    assert bound.passed


def has(*files: str) -> bool:
    places = [os.environ.get(VARIABLE), cache_folder()]
    return all(any((Path(p) / file).is_file() for p in places if p) for file in files)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["slam", "weighted"])
@pytest.mark.skipif(
    not has("agnews-10k.parquet", "fashion-mnist.npz", "cifar10-20k.npz", "adult.parquet"),
    reason="the data are not here",
)
def test_a_small_run_of_the_whole(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["reproduce", name, "--seeds", "1", "--share", "0.05", "--workers", "1"]
    status = main([*words, "--out", str(tmp_path / "out"), "--json"])
    evidence = json.loads(capsys.readouterr().out)
    assert status == (0 if evidence["passed"] else 1)
    claims = {claim["claim"]: claim for claim in evidence["claims"]}
    assert claims[f"agnews-step, hard: {name} over plain"]["pass"] in (True, False)
    if name == "slam":
        assert claims["cifar-tree: plain mixing is refused (1)"]["pass"] is True
