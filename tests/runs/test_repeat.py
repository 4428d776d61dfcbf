"""A run is a function of its recipe, data and seed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

import limbeck as lb

TRAINING = {
    "epochs": 3,
    "batch": 16,
    "device": "cpu",
    "views": [{"noise": {}}, "mixup"],
    "log_every": 2,
    "ema": 0.9,
}


def network(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))


def arrays() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(120, 6, generator=torch.Generator().manual_seed(0))
    return x, x[:, :3].argmax(1)


def run(out: Path, seed: int, **training: Any) -> lb.Result:
    return lb.distill(
        network,
        network(99),
        arrays(),
        training=TRAINING | training,
        seed=seed,
        out=out,
        progress=False,
    )


def events(result: lb.Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (result.run / "metrics.jsonl").read_text().splitlines()]


def test_the_same_seed_gives_the_same_bits_and_another_does_not(tmp_path: Path) -> None:
    torch.manual_seed(1)
    run(tmp_path / "a", 0)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    run(tmp_path / "b", 0)
    assert torch.equal(torch.get_rng_state(), state)
    run(tmp_path / "c", 1)
    for name in ("student.safetensors", "metrics.jsonl", "predictions.safetensors"):
        first, same, other = ((tmp_path / arm / name).read_bytes() for arm in "abc")
        assert first == same, name
        assert first != other, name


def test_a_longer_run_goes_on_from_a_shorter_one(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", 0, schedule="constant")
    run(tmp_path / "parts", 0, schedule="constant", epochs=1)
    parts = lb.distill(
        network,
        network(99),
        arrays(),
        training=TRAINING | {"schedule": "constant"},
        out=tmp_path / "parts",
        resume=True,
        progress=False,
    )
    assert parts.metrics == whole.metrics
    for name in ("student.safetensors", "metrics.jsonl"):
        assert (parts.run / name).read_bytes() == (whole.run / name).read_bytes()


def test_early_stopping_ends_the_run_and_delivers_the_best(tmp_path: Path) -> None:
    result = run(tmp_path / "run", 0, epochs=40, early_stop=2, optimizer={"lr": 1e-9})
    lines = events(result)
    assert [line["epoch"] for line in lines if line["event"] == "val"] == [1, 2, 3]
    assert result.metrics["best.epoch"] == 1
    assert result.metrics["val.accuracy"] == result.metrics["best.val.accuracy"]


def test_rare_checkpoints_and_evaluations_still_end_complete(tmp_path: Path) -> None:
    result = run(tmp_path / "run", 0, epochs=3, eval_every=2, checkpoint_every=5)
    lines = events(result)
    assert [line["epoch"] for line in lines if line["event"] == "val"] == [2, 3]
    assert (result.run / "checkpoints" / "last.safetensors").exists()
    assert lines[-1] == {"event": "final", "metrics": result.metrics}
