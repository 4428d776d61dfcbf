"""What a live teacher costs with limbeck's fast paths, over the naive forward pass, in one run.

Naive is `with torch.no_grad(): teacher(x)` on a batch of 64. Labelling is measured over the
teacher's own best forward throughput, whatever the batch. One thread, processor time.

    python benchmarks/teacher.py [--json] [--rounds N]
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
import tempfile
import time
from pathlib import Path

import torch
from interleaved import over, seconds
from torch import Tensor, nn

import limbeck
from limbeck.data.base import ArraySplit, Data
from limbeck.models.source import build_model
from limbeck.teachers.live import FAST, LiveTeacher

MODELS = {"resnet": "limbeck:resnet56", "wrn": "limbeck:wrn-40-2"}
SHAPE, CLASSES, BATCH = (3, 32, 32), 100, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures: dict[str, float] = {}
    for name, reference in MODELS.items():
        torch.manual_seed(0)
        model = build_model(reference, shape=SHAPE, classes=CLASSES).eval()
        figures |= {f"{name}.{key}": value for key, value in forward(model, options.rounds).items()}
    torch.manual_seed(0)
    model = build_model(MODELS["resnet"], shape=SHAPE, classes=CLASSES).eval()
    figures["resnet.label_over_best"] = labelling(model, max(1, options.rounds // 4))
    if options.json:
        print(json.dumps(figures, indent=2))
        return
    for key, value in figures.items():
        print(f"{key:28} {value:.3f}")


def forward(model: nn.Module, rounds: int) -> dict[str, float]:
    """Each fast path by itself, and all that are on, over the naive forward pass."""
    x = torch.randn(BATCH, *SHAPE)
    naive = copy.deepcopy(model)
    ways = {"fast": FAST, **{way: (way,) for way in FAST}}
    if torch.backends.cpu.get_cpu_capability() == "AVX512":
        ways["bf16"] = (*FAST, "bf16")
    teachers = {key: LiveTeacher(copy.deepcopy(model), fast=way) for key, way in ways.items()}
    loops = {key: (lambda one=one: one({"x": x})) for key, one in teachers.items()}
    times = seconds(loops | {"naive": lambda: plain(naive, x)}, rounds)
    return {f"{key}_over_naive": over(times, key, "naive") for key in ways}


def plain(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x)


def labelling(model: nn.Module, rounds: int) -> float:
    """Samples a second of `limbeck.label` over those of the best batch of the teacher alone."""
    samples = 4096
    x = torch.randn(samples, *SHAPE)
    split = ArraySplit(x, torch.arange(samples) % CLASSES)
    names = tuple(map(str, range(CLASSES)))
    data = Data("random", "array", split, split, None, None, names, SHAPE)
    teacher = LiveTeacher(copy.deepcopy(model))
    ratios = []
    for _ in range(rounds):
        best = min(bare(teacher, x, batch) for batch in (64, 256, 1024))
        folder = Path(tempfile.mkdtemp())
        start = time.process_time()
        limbeck.label(model, data, splits=["train"], out=folder / "s", progress=False)
        ratios.append(best / (time.process_time() - start))
        shutil.rmtree(folder)
    return sorted(ratios)[len(ratios) // 2]


def bare(teacher: LiveTeacher, x: Tensor, batch: int) -> float:
    start = time.process_time()
    for part in x.split(batch):
        teacher({"x": part})
    return time.process_time() - start


if __name__ == "__main__":
    main()
