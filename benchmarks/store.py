"""What training from a store costs over training with labels alone, and what reading it costs.

All in one run: ratios of interleaved processor times, one thread.

    python benchmarks/store.py [--json] [--rounds N] [--rows 10000000]
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from interleaved import over, seconds
from torch import nn
from torch.nn import functional as F

import limbeck
from limbeck.data.base import ArraySplit, Data
from limbeck.engine.ranks import Ranks
from limbeck.models.source import build_model
from limbeck.recipe.spec import Recipe
from limbeck.runs.execute import make_engine
from limbeck.runs.job import make_job
from limbeck.store import TeacherStore
from limbeck.store.manifest import Author, Manifest, Part, Shard, write_manifest
from limbeck.store.shards import ShardWriter, form_of, row_bytes, write_rows
from limbeck.store.writer import SHARD_BYTES

BATCH, CLASSES, SHAPE, SAMPLES, STEPS = 64, 100, (3, 32, 32), 1024, 2
PAIRS = {
    "resnet": ("limbeck:resnet56", "limbeck:resnet20"),
    "wrn": ("limbeck:wrn-40-2", "limbeck:wrn-16-2"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--rows", type=int, default=10_000_000, help="of the large store")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())
    figures: dict[str, float] = {}
    try:
        for name in PAIRS:
            figures |= steps(name, folder / name, options.rounds)
        figures |= reading(folder / "large", options.rows, 20 * options.rounds)
        figures |= comparing(folder / "compare")
    finally:
        shutil.rmtree(folder)
    if options.json:
        print(json.dumps(figures, indent=2))
        return
    for key, value in figures.items():
        print(f"{key:32} {value:.3f}")


def random_data(classes: int = CLASSES, shape: tuple[int, ...] = SHAPE) -> Data:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(SAMPLES, *shape, generator=generator)
    split = ArraySplit(x, torch.randint(classes, (SAMPLES,), generator=generator))
    names = tuple(map(str, range(classes)))
    return Data("random", "array", split, split, split, None, names, shape)


def steps(name: str, folder: Path, rounds: int) -> dict[str, float]:
    """Steps from one store and from four, over labels alone and over the naive online loop."""
    data = random_data()
    teacher, student = PAIRS[name]
    # What a store holds is read alike whoever said it, so a cheap teacher labels here.
    cheap = [nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, CLASSES)) for _ in range(4)]
    stores = limbeck.label(cheap, data, out=folder, progress=False)
    loops = {
        "labels": engine(student, data, [], "labels"),
        "one": engine(student, data, stores[:1], "kd"),
        "four": engine(student, data, stores, "kd"),
        "fast": engine(student, data, stores[:1], "kd", channels_last=True),
        "naive": naive(teacher, student, data),
    }
    times = seconds(loops, rounds)
    return {
        f"{name}.store_over_labels": over(times, "one", "labels"),
        f"{name}.four_stores_over_one": over(times, "four", "one"),
        f"{name}.store_over_naive": over(times, "one", "naive"),
        f"{name}.fast_store_over_naive": over(times, "fast", "naive"),
    }


def engine(
    student: str, data: Data, teachers: list[Any], method: str, **training: Any
) -> Callable[[], None]:
    """Some steps of limbeck's engine."""
    recipe = Recipe.model_validate(
        {"student": student, "method": method, "training": {"batch": BATCH, **training}}
    )
    job = make_job(recipe, teachers=teachers, data=data)
    loop = make_engine(job, Ranks(job.device))
    loop.method.train()

    def run() -> None:
        for _ in range(STEPS):
            loop.step()
        loop.flush()

    return run


def naive(teacher: str, student: str, data: Data) -> Callable[[], None]:
    """The online loop that one would write by hand."""
    models = [build_model(name, shape=SHAPE, classes=CLASSES) for name in (teacher, student)]
    models[0].eval()
    models[1].train()
    optimizer = torch.optim.SGD(models[1].parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    everything = data.train.fetch(torch.arange(SAMPLES))
    x, y = everything["x"], everything["y"]
    place = 0

    def run() -> None:
        nonlocal place
        for _ in range(STEPS):
            rows = torch.arange(place, place + BATCH) % SAMPLES
            place += BATCH
            with torch.no_grad():
                soft = (models[0](x[rows]) / 4).softmax(1)
            logits = models[1](x[rows])
            distance = F.kl_div((logits / 4).log_softmax(1), soft, reduction="batchmean")
            loss = 0.9 * 16 * distance + 0.1 * F.cross_entropy(logits, y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return run


def reading(folder: Path, rows: int, rounds: int, top: int = 32) -> dict[str, float]:
    """A large store of the top logits: opening it, and 64 random rows over a plain memory map."""
    write_large(folder, rows, top)
    before = private_bytes()
    start = time.perf_counter()
    store = TeacherStore(folder)
    opened = time.perf_counter() - start
    kept = torch.arange(rows)  # what a training holds besides: the row of each of its samples
    flat = np.memmap(folder / "plain.bin", np.uint8, "r", shape=(rows, top * 4 + 4))
    drawn = torch.Generator().manual_seed(0)
    batches = [kept[torch.randint(rows, (64,), generator=drawn)] for _ in range(50)]
    whole = [batch.numpy() for batch in batches]

    def ours() -> None:
        for batch in batches:
            store.read(batch)

    def plain() -> None:
        for batch in whole:
            flat[batch]

    ours()
    held = private_bytes() - before
    times = seconds({"ours": ours, "plain": plain}, rounds, warm=3)
    one = sorted(times["ours"])[len(times["ours"]) // 2] / len(batches)
    return {
        "large.rows": float(rows),
        "large.open_seconds": opened,
        "large.private_mb": held / 2**20,
        "large.read_us": 1e6 * one,
        "large.read_over_memmap": over(times, "ours", "plain"),
    }


def write_large(folder: Path, rows: int, top: int) -> None:
    """A store of `rows` rows that nobody labelled, and a file with as many bytes a row."""
    folder.mkdir(parents=True)
    part = min(rows, 1_000_000)
    record = {
        "id": torch.arange(part),
        "hash": torch.arange(part),
        "values": torch.zeros(part, 1, top, dtype=torch.float16),
        "indices": torch.zeros(part, 1, top, dtype=torch.int16),
        "rest": torch.zeros(part, 1),
    }
    limit = SHARD_BYTES // row_bytes(form_of(record))
    shards = []
    for number, begin in enumerate(range(0, rows, limit)):
        size = min(limit, rows - begin)
        name = f"train-{number:05d}.safetensors"
        with ShardWriter(folder / name, form_of(record), size) as shard:
            for place in range(0, size, part):
                shard.add({key: value[: size - place] for key, value in record.items()})
        shards.append(Shard(file=name, part="train", rows=size, views=1, sha256=""))
    write_rows(
        folder / "index.safetensors", {"hash": torch.arange(rows), "row": torch.arange(rows)}
    )
    manifest = Manifest(
        limbeck=limbeck.__version__,
        author=Author(name="nobody"),
        classes=[str(number) for number in range(100)],
        top_k=top,
        parts=[Part(name="train", samples=rows, views=1, digest="")],
        shards=shards,
    )
    write_manifest(folder / "manifest.json", manifest)
    with (folder / "plain.bin").open("wb") as file:
        file.truncate(rows * (top * 4 + 4))
        for place in range(0, rows, part):
            file.write(bytes(min(part, rows - place) * (top * 4 + 4)))


def private_bytes() -> int:
    """Memory of this process that it shares with no file."""
    text = Path("/proc/self/smaps_rollup").read_text()
    return 1024 * sum(int(size) for size in re.findall(r"Private_Dirty:\s+(\d+)", text))


def comparing(folder: Path) -> dict[str, float]:
    """A whole comparison, 5 arms of 3 seeds, from a store over the same with a live teacher."""
    data = random_data(10, (3, 16, 16))
    torch.manual_seed(0)
    teacher = build_model("limbeck:resnet20", shape=(3, 16, 16), classes=10)
    store = limbeck.label(teacher, data, out=folder / "outputs", progress=False)
    taken = {}
    for name, one, reuse in (("live", teacher, False), ("store", store, True)):
        start = time.process_time()
        limbeck.compare(
            "limbeck:convnet?widths=8,16",
            one,
            data,
            arms=["kd", "dkd", "nkd", "dist"],
            seeds=3,
            temperatures=[4.0],
            weights=[0.9],
            training={"epochs": 3, "batch": BATCH, "reuse_outputs": reuse},
            out=folder / name,
            progress=False,
        )
        taken[name] = time.process_time() - start
    return {"compare.store_over_live": taken["store"] / taken["live"]}


if __name__ == "__main__":
    main()
