"""How dear batch augmentation is: flip and padded crop of 50,000 32x32x3 images over indexing them.

`python benchmarks/augment.py --json` prints one flat object. One thread; indexing and augmenting
take turns batch by batch and medians are compared, so that a busy machine hits both. Indexing is
taken in torch's fastest form, `images.index_select(0, rows)`; `images[rows]` costs six times as
much. The ratio at batches of 512 has to stay below 3.
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
    """Median seconds a batch of indexing and of augmenting."""
    times: dict[str, list[float]] = {"index": [], "augment": []}
    for epoch in range(1, passes + 1):
        for rows in torch.randperm(IMAGES).split(batch)[: IMAGES // batch]:
            start = time.perf_counter()
            x = split.x.index_select(0, rows)
            indexed = time.perf_counter()
            views({"x": x, "index": rows}, epoch)
            augmented = time.perf_counter()
            times["index"].append(indexed - start)
            times["augment"].append(augmented - indexed)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one flat JSON object")
    parser.add_argument("--passes", type=int, default=3, help="passes over the images")
    options = parser.parse_args()
    torch.set_num_threads(1)
    # A training has freed large activations before: glibc then keeps its memory for the next
    # batch, where a fresh process would hand it back and fault it in again.
    torch.ones(31 << 20, dtype=torch.uint8)
    images = torch.randint(0, 256, (IMAGES, 3, 32, 32), dtype=torch.uint8)
    split = ArraySplit(images)
    views = parse_views(["flip", {"crop": {"padding": 4}}], kind="image", source=split)
    figures: dict[str, float] = {}
    for batch, name in ((512, "flip_crop"), (64, "flip_crop_batch64")):
        cost = measure(split, views, batch, options.passes)
        figures[f"augment.{name}_over_index"] = cost["augment"] / cost["index"]
        figures[f"augment.{name}_us_per_image"] = cost["augment"] / batch * 1e6
    if options.json:
        print(json.dumps(figures))
    else:
        for key, value in figures.items():
            print(f"{key:44} {value:8.3f}")


if __name__ == "__main__":
    main()
