"""The learning rate's schedule, at values worked out by hand."""

from __future__ import annotations

import math

import pytest

from limbeck.engine.schedule import factor
from limbeck.recipe.spec import Schedule


def test_cosine_falls_from_one_towards_zero() -> None:
    values = [factor(Schedule(name="cosine"), step, 8, 4) for step in range(8)]
    assert values == pytest.approx([0.5 * (1 + math.cos(math.pi * k / 8)) for k in range(8)])
    assert values[0] == 1.0
    assert values[4] == pytest.approx(0.5)


def test_milestones_are_shares_of_the_training() -> None:
    schedule = Schedule(name="multistep", milestones=[0.5, 0.75], gamma=0.1)
    values = [factor(schedule, step, 8, 4) for step in range(8)]
    assert values == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])


def test_constant_stays() -> None:
    assert {factor(Schedule(name="constant"), step, 8, 4) for step in range(8)} == {1.0}


def test_warm_up_grows_to_one_and_the_rest_follows_the_schedule() -> None:
    schedule = Schedule(name="cosine", warmup=1.0)
    values = [factor(schedule, step, 12, 4) for step in range(12)]
    assert values[:4] == [0.25, 0.5, 0.75, 1.0]
    assert values[4:] == pytest.approx([0.5 * (1 + math.cos(math.pi * k / 8)) for k in range(8)])


def test_half_an_epoch_of_warm_up() -> None:
    schedule = Schedule(name="constant", warmup=0.5)
    assert [factor(schedule, step, 8, 4) for step in range(3)] == [0.5, 1.0, 1.0]
