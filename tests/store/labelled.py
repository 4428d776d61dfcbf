"""A small teacher and small data to label."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

import limbeck
from limbeck.data.base import Data

TRAINING: dict[str, Any] = {"epochs": 3, "batch": 32, "views": ["flip", {"crop": {"padding": 2}}]}


def images(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    drawn = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, (count, 3, 8, 8), generator=drawn, dtype=torch.uint8)
    return x, torch.arange(count) % 4


def small_data(order: torch.Tensor | None = None, seed: int = 0) -> Data:
    x, y = images(160, seed)
    if order is not None:
        x, y = x[order], y[order]
    test = images(40, seed + 1)
    return limbeck.load_data((x, y, *test))


def small_teacher(seed: int = 1) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(6 * 64, 4),
    )


def student(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 4))


def weights(result: limbeck.Result) -> torch.Tensor:
    return torch.cat([value.flatten() for value in result.student.parameters()])


def distilled(teacher: Any, data: Any, out: Path, **training: Any) -> limbeck.Result:
    return limbeck.distill(
        student, teacher, data, training={**TRAINING, **training}, out=out, progress=False
    )
