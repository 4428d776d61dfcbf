"""What torchrun runs: several trainings in one world; every rank keeps the parameters it has."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

import limbeck
from limbeck.data.load import load_data
from limbeck.engine.ranks import Ranks
from limbeck.recipe.spec import DataSpec

SETTINGS = {
    "epochs": 2,
    "batch": 32,
    "log_every": 4,
    "device": "cpu",
    "ema": 0.8,
    "clip": 0.3,
    "schedule": "constant",
}
ADAMW = {"accumulate": 2, "optimizer": {"name": "adamw", "lr": 1e-3}}
SHARD = {"strategy": "shard"}
RUNS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "accumulate": {"accumulate": 2},
    "adamw": ADAMW,
    "shard": SHARD,
    "shard_adamw": SHARD | ADAMW,
}


def mlp(seed: int, width: int = 24) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10)
        return nn.Sequential(nn.Flatten(), *layers)


def train(folder: Path, *, method: Any = "kd", resume: bool = False, **training: Any) -> Any:
    return limbeck.distill(
        mlp,
        mlp(9, 40),
        load_data(DataSpec(source="digits", limit=300)),
        method=method,
        training=SETTINGS | training,
        out=folder,
        resume=resume,
        progress=False,
    )


def main(out: Path) -> None:
    torch.set_num_threads(1)
    rank = Ranks(torch.device("cpu")).rank
    for name, training in RUNS.items():
        student = train(out / name, **training).student
        save_file(student.state_dict(), out / f"{name}.{rank}.safetensors")
    train(out / "resumed", **RUNS["shard_adamw"] | {"epochs": 1})
    train(out / "resumed", resume=True, **RUNS["shard_adamw"])
    train(out / "coupled", method="dist", epochs=1)
    try:
        train(out / "refused", method="greedy", **SHARD)
    except limbeck.InputError as error:
        (out / f"refused.{rank}.txt").write_text(str(error))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
