"""The batch plan: a pure function that shares samples fairly."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from limbeck.data.plan import BatchPlan
from limbeck.errors import InputError

PLAN = BatchPlan(labeled=50, batch=12, seed=3, pool=31, pool_ratio=2)


def rows(plan: BatchPlan, part: str, step: int, micro: int = 0) -> list[int]:
    epoch, span = plan.span(part, step, micro)
    return plan.permutation(part, epoch)[span].tolist()


def test_an_epoch_meets_every_sample_at_most_once() -> None:
    assert PLAN.steps_per_epoch == 4
    seen = [row for step in range(4) for row in rows(PLAN, "train", step)]
    assert len(seen) == len(set(seen)) == 48
    assert set(seen) < set(range(50))
    assert rows(PLAN, "train", 4) != rows(PLAN, "train", 0)


def test_the_plan_is_a_function_of_seed_and_step() -> None:
    again, other = replace(PLAN), replace(PLAN, seed=4)
    assert rows(again, "train", 7) == rows(PLAN, "train", 7)
    assert rows(other, "train", 7) != rows(PLAN, "train", 7)


@pytest.mark.parametrize(("ranks", "accumulate"), [(2, 1), (1, 3), (2, 3)])
@pytest.mark.parametrize("part", ["train", "pool"])
@pytest.mark.parametrize("step", [0, 5])
def test_ranks_and_micro_batches_share_the_step(
    ranks: int, accumulate: int, part: str, step: int
) -> None:
    shares = [
        rows(replace(PLAN, ranks=ranks, rank=rank, accumulate=accumulate), part, step, micro)
        for micro in range(accumulate)
        for rank in range(ranks)
    ]
    assert len({len(share) for share in shares}) == 1
    assert [row for share in shares for row in share] == rows(PLAN, part, step)


def test_the_pool_streams_at_its_own_pace() -> None:
    assert PLAN.pool_batch == 24
    assert [PLAN.span("pool", step, 0)[0] for step in range(3)] == [0, 1, 2]
    small = replace(PLAN, pool=5)
    assert small.pool_batch == 5
    assert sorted(rows(small, "pool", 9)) == [0, 1, 2, 3, 4]


def test_a_view_for_every_pass() -> None:
    assert [PLAN.view("train", step) for step in (0, 3, 4, 8)] == [1, 1, 2, 3]
    assert [PLAN.view("pool", step) for step in (0, 1, 2)] == [1, 2, 3]
    replayed = replace(PLAN, view_count=2)
    assert [replayed.view("train", step) for step in (0, 4, 8, 12)] == [0, 1, 0, 1]


def test_a_batch_larger_than_the_data_takes_all_of_it() -> None:
    plan = BatchPlan(labeled=7, batch=64, seed=0)
    assert (plan.global_batch, plan.steps_per_epoch) == (7, 1)
    assert sorted(rows(plan, "train", 3)) == list(range(7))
    shared = BatchPlan(labeled=7, batch=64, seed=0, ranks=2)
    assert shared.global_batch == 6


@pytest.mark.parametrize(
    "options",
    [{"batch": 13, "ranks": 2}, {"batch": 10, "accumulate": 4}, {"labeled": 1, "ranks": 2}],
)
def test_uneven_sharing_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(InputError, match=r"cannot be shared evenly.*multiple of"):
        replace(PLAN, **options)


def test_a_pool_that_ranks_cannot_share_is_refused() -> None:
    with pytest.raises(InputError, match="1 unlabelled sample"):
        replace(PLAN, pool=1, ranks=2)


def test_every_order_is_as_likely() -> None:
    orders = torch.stack([BatchPlan(6, 2, seed).permutation("train", 0) for seed in range(600)])
    counts = torch.bincount(orders[:, 0], minlength=6)
    assert counts.min() > 60
    assert counts.max() < 140
