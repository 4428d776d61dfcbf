"""What three taps add to a forward pass: the same model with them and without, in turns.

``python benchmarks/taps.py --json`` prints one flat object: `resnet.three_taps_over_none` is the
median over repetitions of the time with taps over the time without, both in this one run. It has
to stay below 1.03.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from limbeck.models.source import build_model
from limbeck.nn.forward import Forward
from limbeck.nn.input import InputAdapter

BATCH, SHAPE = 64, (3, 32, 32)
MODELS = {
    "resnet": ("limbeck:resnet20", ("layer1", "layer2", "layer3")),
    "convnet": ("limbeck:convnet?widths=16,32,64", ("layer1", "layer2", "layer3")),
}


def seconds(model: nn.Module, x: Tensor, taps: Sequence[str]) -> float:
    """One forward pass that records these taps."""
    forward = Forward(model, InputAdapter(), taps)
    start = time.perf_counter()
    forward(x)
    taken = time.perf_counter() - start
    forward.taps.remove()
    return taken


def ratio(name: str, repeats: int) -> float:
    """Time with three taps over the time without, both first in every other repetition."""
    reference, taps = MODELS[name]
    torch.manual_seed(0)
    model = build_model(reference, shape=SHAPE, classes=10).train()
    x = torch.randn(BATCH, *SHAPE)
    ratios = []
    for repeat in range(repeats + 3):
        order = ((), taps) if repeat % 2 else (taps, ())
        times = {bool(paths): seconds(model, x, paths) for paths in order}
        if repeat >= 3:  # the first ones warm up
            ratios.append(times[True] / times[False])
    return statistics.median(ratios)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one flat JSON object")
    parser.add_argument("--repeats", type=int, default=200, help="forward passes of each kind")
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures = {f"{name}.three_taps_over_none": ratio(name, options.repeats) for name in MODELS}
    if options.json:
        print(json.dumps(figures))
    else:
        for key, value in figures.items():
            print(f"{key:36} {value:8.4f}")


if __name__ == "__main__":
    main()
