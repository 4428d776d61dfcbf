"""Two processes under torchrun: they agree with one another, and with one process alone."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from two_ranks import RUNS, train

from limbeck.engine.checkpoint import load_tensors
from limbeck.recipe.folder import read_json

HERE = Path(__file__).parent


@dataclass
class World:
    out: Path
    said: str


@pytest.fixture(scope="module")
def world(plugin: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Everything that two ranks have left, after one start of torchrun."""
    out = tmp_path_factory.mktemp("ranks")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", "2", HERE / "two_ranks.py", out),
        ],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(plugin)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return World(out, done.stderr)


def student(world: World, name: str, rank: int = 0) -> dict[str, torch.Tensor]:
    return load_file(world.out / f"{name}.{rank}.safetensors")


@pytest.mark.parametrize("name", RUNS)
def test_both_ranks_hold_the_same_bits(world: World, name: str) -> None:
    first, second = student(world, name), student(world, name, 1)
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", RUNS)
def test_two_ranks_train_as_one_does(world: World, name: str, tmp_path: Path) -> None:
    training = {key: value for key, value in RUNS[name].items() if key != "strategy"}
    alone = train(tmp_path / "run", **training)
    torch.testing.assert_close(
        student(world, name), dict(alone.student.state_dict()), rtol=1e-4, atol=1e-5
    )
    start = load_tensors(tmp_path / "run" / "checkpoints" / "last.safetensors")[0]
    both = load_tensors(world.out / name / "checkpoints" / "last.safetensors")[0]
    assert start.keys() == both.keys()
    torch.testing.assert_close(both, start, rtol=1e-4, atol=1e-5)


def test_a_sharded_run_resumes_where_it_stood(world: World) -> None:
    for name in ("student.safetensors", "metrics.jsonl", "checkpoints/last.safetensors"):
        resumed = (world.out / "resumed" / name).read_bytes()
        assert resumed == (world.out / "shard_adamw" / name).read_bytes(), name


def test_one_rank_writes_the_folder(world: World) -> None:
    events = (world.out / "sgd" / "metrics.jsonl").read_text().splitlines()
    assert len(events) == len(set(events))
    assert sum('"val"' in line for line in events) == 2
    card = read_json(world.out / "shard" / "card.json")
    assert card["model"]["parameters"] == 64 * 24 + 24 + 24 * 10 + 10


def test_sharding_refuses_what_differentiates(world: World) -> None:
    for rank in (0, 1):
        said = (world.out / f"refused.{rank}.txt").read_text()
        assert "training.strategy: replicate" in said
    assert not (world.out / "refused" / "checkpoints" / "last.safetensors").exists()


def test_a_coupled_loss_says_that_it_sees_its_share_only(world: World) -> None:
    lines = [line for line in world.said.splitlines() if "relates the samples" in line]
    assert len(lines) == 1
    assert lines[0].startswith("dist: ")
    assert "dist: relates" in (world.out / "coupled" / "log.txt").read_text()
