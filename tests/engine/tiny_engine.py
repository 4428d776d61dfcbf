"""A tiny problem, and an engine for it that has not yet taken a step."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from limbeck.engine.engine import Engine
from limbeck.engine.ranks import Ranks
from limbeck.recipe.spec import Recipe
from limbeck.runs.execute import make_engine as engine_of
from limbeck.runs.job import make_job


def arrays(count: int = 100) -> tuple[torch.Tensor, torch.Tensor]:
    """72 samples to train on, in 3 classes, 8 to validate, 20 to test."""
    x = torch.randn(count, 6, generator=torch.Generator().manual_seed(0))
    return x, x[:, :3].argmax(1)


def network(seed: int, width: int = 5) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 3))


def settings(**training: Any) -> dict[str, Any]:
    basis = {"epochs": 2, "batch": 12, "schedule": "constant", "device": "cpu", "log_every": 3}
    return basis | training


def make_engine(method: Any = "kd", student: Any = network, **training: Any) -> Engine:
    recipe = Recipe.model_validate({"method": method, "training": settings(**training)})
    job = make_job(recipe, student=student, teachers=[network(9, 8)], data=arrays())
    return engine_of(job, Ranks(job.device))


def parameters(engine: Engine) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in engine.method.parameters()]
