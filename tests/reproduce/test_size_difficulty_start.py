"""Spectral students, wide networks, copy or average: what the claims are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck.reproduce import copy_average, spectral, wide_network
from limbeck.reproduce.claims import Scale


def missed(claims: list) -> list[str]:
    return [claim.claim for claim in claims if claim.passed is False]


def test_the_exact_core_is_judged() -> None:
    good = {
        "merged": [0.0] * 3,
        "knee": [0.0, 0.0, 1.0],
        "below": [0.2],
        "full": [1e-4],
        "cosine": [1.0],
        "balance": [0.9],
        "alive_pull": [1.0],
        "dead_pull": [0.5],
        "paths": [0.02],
        "export": [1e-6],
    }
    assert missed(spectral.judge_core(spectral.Found(**good))) == []
    bad = spectral.Found(**good | {"merged": [0.0, -1.0, 0.0], "knee": [1.0, 4.0, 0.0]})
    assert len(missed(spectral.judge_core(bad))) == 3
    assert missed(spectral.judge_digits(97.0, 84.0, 24.0)) == []
    assert len(missed(spectral.judge_digits(97.0, 90.0, 40.0))) == 2
    assert missed(spectral.judge_paper((22, 0.0), (20, 0.0), (50, 0.0))) == []
    assert len(missed(spectral.judge_paper((30, 0.02), (17, 0.0), (40, 0.0)))) == 4


def test_teachers_are_what_the_claims_say() -> None:
    teacher = spectral.orthonormal_teacher(8, 3)
    weight = teacher[0].weight
    torch.testing.assert_close(weight @ weight.T, torch.eye(8), atol=1e-5, rtol=0)
    assert set(teacher[2].weight.flatten().tolist()) == {1.5, -1.5}
    assert spectral.path_distance(teacher, teacher) == 0
    assert missed(spectral.convolution()) == []


def test_closed_forms_and_critical_points_hold() -> None:
    assert missed([*copy_average.critical_points()]) == []
    assert copy_average._differences("relu") < 1e-7
    assert abs(copy_average._numeric_neuron(7) - copy_average.one_neuron(7).loss) < 1e-10


def test_wide_claims_that_need_no_training() -> None:
    assert missed([*wide_network.logits(), wide_network.matrix_free()]) == []
    assert wide_network.rises("", [1.0, 2.0, 2.0]).passed is False
    assert wide_network.rises("", [1.0, 2.0, 3.0]).passed is True
    model = wide_network.wide(3, 16, depth=2, seed=0)
    assert model(torch.zeros(4, 3, dtype=torch.float64)).shape == (4, 1)


@pytest.mark.slow
@pytest.mark.parametrize("module", [spectral, wide_network, copy_average])
def test_a_small_share_runs_to_its_end(module: Any, tmp_path: Path) -> None:
    evidence = module.measure(Scale(tmp_path, share=0.05))
    assert len(evidence.claims) > 10
    assert all(claim.claim for claim in evidence.claims)
