"""What the engine costs over a hand-written loop, in one run: ratios of interleaved medians.

The floor is what one would write by hand: samples in memory, teacher in inference mode, student
forward, loss, backward, SGD, nothing logged. One thread, processor time, so that other work on
the machine does not count.

    python benchmarks/engine.py [--json] [--rounds N] [--pairs mlp resnet]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from limbeck.data.base import ArraySplit, Data
from limbeck.engine.ranks import Ranks
from limbeck.models.source import build_model
from limbeck.recipe.spec import Recipe
from limbeck.runs.execute import make_feed, make_method
from limbeck.runs.job import make_job

BATCH, TEMPERATURE, SAMPLES = 64, 4.0, 2048
PAIRS = {
    "mlp": ("limbeck:mlp?widths=1200,1200", "limbeck:mlp?widths=64", (784,), 10, 100),
    "resnet": ("limbeck:resnet56", "limbeck:resnet20", (3, 32, 32), 100, 2),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--pairs", nargs="+", default=list(PAIRS), choices=list(PAIRS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures: dict[str, float] = {}
    for name in options.pairs:
        figures |= measure(name, options.rounds)
        if not options.json:
            print(
                f"{name:8} live/floor {figures[f'{name}.live_over_floor']:.3f} "
                f"[{figures[f'{name}.live_over_floor_min']:.3f}, "
                f"{figures[f'{name}.live_over_floor_max']:.3f}]   "
                f"floor {figures[f'{name}.floor_ms']:.2f} ms a step"
            )
    if options.json:
        print(json.dumps(figures, indent=2))


def measure(name: str, rounds: int) -> dict[str, float]:
    """Ratio of the engine's step to the floor's, as the median over the rounds."""
    teacher, student, shape, classes, steps = PAIRS[name]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(SAMPLES, *shape, generator=generator)
    y = torch.randint(classes, (SAMPLES,), generator=generator)
    models = [build_model(text, shape=shape, classes=classes) for text in (teacher, student)]
    loops = {
        "floor": floor(models[0], build_model(student, shape=shape, classes=classes), x, y),
        "live": engine(models[0], models[1], x, y, classes),
    }
    for loop in loops.values():
        loop(3)
    times: dict[str, list[float]] = {key: [] for key in loops}
    for round_ in range(rounds):
        # The order alternates, so that neither always runs on the warmer cache.
        for key in sorted(loops, reverse=bool(round_ % 2)):
            start = time.process_time()
            loops[key](steps)
            times[key].append((time.process_time() - start) / steps)
    ratios = [live / base for live, base in zip(times["live"], times["floor"], strict=True)]
    return {
        f"{name}.live_over_floor": statistics.median(ratios),
        f"{name}.live_over_floor_min": min(ratios),
        f"{name}.live_over_floor_max": max(ratios),
        f"{name}.floor_ms": 1000 * statistics.median(times["floor"]),
    }


def floor(teacher: nn.Module, student: nn.Module, x: Tensor, y: Tensor) -> Callable[[int], None]:
    """The loop that one would write by hand."""
    optimizer = torch.optim.SGD(student.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    teacher.eval()
    student.train()

    def run(steps: int) -> None:
        order = torch.randperm(len(x))
        for step in range(steps):
            rows = order[(step * BATCH) % SAMPLES :][:BATCH]
            inputs, labels = x[rows], y[rows]
            with torch.inference_mode():
                target = teacher(inputs)
                soft = (target / TEMPERATURE).softmax(1)
            logits = student(inputs)
            distance = F.kl_div(
                (logits / TEMPERATURE).log_softmax(1), soft.clone(), reduction="batchmean"
            )
            loss = 0.9 * TEMPERATURE**2 * distance + 0.1 * F.cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return run


def engine(
    teacher: nn.Module, student: nn.Module, x: Tensor, y: Tensor, classes: int
) -> Callable[[int], None]:
    """The same training by limbeck's engine, its logging included."""
    from limbeck.engine.engine import Engine

    split = ArraySplit(x, y)
    names = tuple(str(number) for number in range(classes))
    data = Data("random", "array", split, split, split, None, names, tuple(x.shape[1:]))
    recipe = Recipe.model_validate(
        {
            "method": "kd",
            "training": {"batch": BATCH, "epochs": 10_000, "optimizer": {"lr": 0.01}},
        }
    )
    job = make_job(recipe, student=student, teachers=[teacher], data=data)
    ranks = Ranks(job.device)
    method = make_method(job, job.build(0))
    loop = Engine(
        method,
        job.teachers,
        make_feed(job, ranks, method),
        recipe.training,
        adapter=job.adapter,
        ranks=ranks,
        device=job.device,
        seed=0,
    )
    method.train()

    def run(steps: int) -> None:
        for _ in range(steps):
            loop.step()
            if loop.done % recipe.training.log_every == 0:
                loop.flush()

    return run


if __name__ == "__main__":
    main()
