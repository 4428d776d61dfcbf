"""The feed: labelled samples first, then the pool, in the plan's views."""

from __future__ import annotations

import torch

from limbeck.data.base import ArraySplit
from limbeck.data.feed import Feed
from limbeck.data.plan import BatchPlan
from limbeck.data.views import parse_views

CPU = torch.device("cpu")


def splits() -> dict[str, ArraySplit]:
    x = torch.arange(40.0).view(20, 2)
    return {
        "train": ArraySplit(x[:12], torch.arange(12) % 3, torch.arange(100, 112)),
        "pool": ArraySplit(x[12:], None, torch.arange(200, 208)),
    }


def test_the_pool_comes_after_the_labels() -> None:
    plan = BatchPlan(labeled=12, batch=4, seed=0, pool=8, pool_ratio=2)
    batch = Feed(plan, dict(splits()), None, CPU).batch(1)
    assert {key: len(value) for key, value in batch.items()} == {"x": 12, "y": 4, "index": 12}
    assert (batch["index"][:4] < 200).all()
    assert (batch["index"][4:] >= 200).all()
    assert torch.equal(batch["y"], (batch["index"][:4] - 100) % 3)
    rows = torch.where(batch["index"] < 200, batch["index"] - 100, batch["index"] - 188)
    assert torch.equal(batch["x"][:, 0], 2.0 * rows)


def test_any_step_can_be_fetched_at_any_time() -> None:
    plan = BatchPlan(labeled=12, batch=4, seed=0, accumulate=2)
    parts = {"train": splits()["train"]}
    in_order = Feed(plan, dict(parts), None, CPU)
    trail = [in_order.batch(step, micro)["index"] for step in range(6) for micro in range(2)]
    assert torch.equal(Feed(plan, dict(parts), None, CPU).batch(4, 1)["index"], trail[9])


def test_views_change_from_pass_to_pass_and_replay() -> None:
    split = splits()["train"]
    plan = BatchPlan(labeled=12, batch=12, seed=0, view_count=2)
    views = {"train": parse_views([{"noise": {}}], seed=1, source=split)}
    feed = Feed(plan, {"train": split}, views, CPU)

    def samples(step: int) -> torch.Tensor:
        batch = feed.batch(step)
        return batch["x"][batch["index"].argsort()]

    assert not torch.equal(samples(0), samples(1))
    assert torch.equal(samples(0), samples(2))
    assert torch.equal(samples(0), split.x)
