"""How dear batch augmentation is: flip and padded crop of 50,000 32x32x3 images over fetching them.

`python benchmarks/augment.py --json` prints one flat object. One thread; fetching alone and
augmenting take turns batch by batch, and medians are compared, so that a busy machine hits both.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch

from limbeck.data.base import ArraySplit
from limbeck.data.views import Views, parse_views

IMAGES = 50_000


def measure(split: ArraySplit, views: Views, batch: int, passes: int) -> dict[str, float]:
    """Median seconds a batch: fetching it, and augmenting what was fetched."""
    times: dict[str, list[float]] = {"fetch": [], "augment": []}
    for epoch in range(1, passes + 1):
        for rows in torch.randperm(len(split)).split(batch)[: len(split) // batch]:
            start = time.perf_counter()
            record = split.fetch(rows)
            fetched = time.perf_counter()
            views(record, epoch)
            times["fetch"].append(fetched - start)
            times["augment"].append(time.perf_counter() - fetched)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one flat JSON object")
    parser.add_argument("--passes", type=int, default=3, help="passes over the images")
    options = parser.parse_args()
    torch.set_num_threads(1)
    images = torch.randint(0, 256, (IMAGES, 3, 32, 32), dtype=torch.uint8)
    split = ArraySplit(images, torch.zeros(IMAGES, dtype=torch.int64))
    views = parse_views(["flip", {"crop": {"padding": 4}}], kind="image", seed=0)
    figures: dict[str, float] = {}
    for batch, name in (
        (512, "flip_crop"),
        (64, "flip_crop_batch64"),
        (256, "b256"),
        (1000, "b1000"),
        (2000, "b2000"),
    ):
        cost = measure(split, views, batch, options.passes)
        figures[f"augment.{name}_over_index"] = cost["augment"] / cost["fetch"]
        figures[f"augment.{name}_us_per_image"] = cost["augment"] / batch * 1e6
    if options.json:
        print(json.dumps(figures))
    else:
        for key, value in figures.items():
            print(f"{key:42} {value:8.3f}")


if __name__ == "__main__":
    main()
