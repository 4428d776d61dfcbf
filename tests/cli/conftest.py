"""A folder with small data, code and a trained teacher, and two ways to run the command in it."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from limbeck.cli.main import main

CODE = """
from torch import nn


def net(shape, classes, width=8):
    hidden = [nn.Linear(shape[0], width), nn.BatchNorm1d(width), nn.ReLU()]
    return nn.Sequential(*hidden, nn.Linear(width, classes))


class Named(nn.Linear):
    def forward(self, x):
        return {"x": super().forward(x)}


class Unnamed(nn.Linear):
    def forward(self, record):
        return super().forward(record["x"])


def named(shape, classes):
    return nn.Sequential(Named(shape[0], 4), Unnamed(4, classes))


def broken(shape, classes):
    raise RuntimeError("no luck")


def recall(logits, y):
    return ((logits.argmax(-1) == 0) & (y == 0)).sum().item() / max(1, (y == 0).sum().item())


def failing(logits, y):
    raise ZeroDivisionError("nothing there")
"""


@dataclass
class Answer:
    """What a command said."""

    status: int
    out: str
    err: str

    def sentence(self) -> str:
        """The one sentence of a refusal."""
        lines = self.err.splitlines()
        assert (self.status, len(lines), self.out) == (2, 1, ""), self
        assert lines[0].startswith("limbeck: "), self
        return lines[0]


Run = Callable[..., Answer]


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working folder of all commands of a session; each writes to folders of its own."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("cli")
    (folder / "mine.py").write_text(CODE)
    _arrays(folder)
    _images(folder)
    _tables(folder)
    before = Path.cwd()
    os.chdir(folder)
    try:
        words = "train --student limbeck:mlp?widths=8 --data points.npz --training.epochs 1"
        assert main([*words.split(), "--out", "teacher", "--json"]) == 0
    finally:
        os.chdir(before)
    return folder


def _arrays(folder: Path) -> None:
    random = np.random.default_rng(0)
    y = np.arange(90) % 3
    x = (random.normal(size=(90, 4)) + y[:, None]).astype(np.float32)
    np.savez(folder / "points.npz", x=x, y=y)
    np.savez(folder / "new.npz", x=x[:7])
    (folder / "corrupt.npz").write_bytes((folder / "points.npz").read_bytes()[:300])
    np.savez(folder / "one-class.npz", x=x, y=0 * y)
    np.savez(folder / "empty.npz", x_train=x, y_train=y, x_test=x[:0], y_test=y[:0])
    np.savez(folder / "outside.npz", x_train=x, y_train=y, x_test=x, y_test=y + 1)
    np.savez(folder / "negative.npz", x=x, y=y - 1)
    np.savez(folder / "four.npz", x=x, y=np.arange(90) % 4)
    np.savez(folder / "nan.npz", x=np.where(np.arange(90)[:, None] == 5, np.nan, x), y=y)
    np.savez(folder / "objects.npz", x=np.array([{}, {}], dtype=object), y=y[:2])
    pixels = random.integers(0, 256, (60, 8, 8), dtype=np.uint8)
    np.savez(folder / "gray.npz", x=pixels, y=np.arange(60) % 3)
    np.savez(folder / "gray-new.npz", x=pixels[:5])
    np.savez(folder / "square.npz", x=(pixels[:5] / 255).astype(np.float32))


def _images(folder: Path) -> None:
    random = np.random.default_rng(1)
    for name in ("images", "damaged"):
        for number in range(16):
            path = folder / name / "ab"[number % 2] / f"{number:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    bad = folder / "damaged" / "b" / "05.png"
    bad.write_bytes(bad.read_bytes()[:60])


def _tables(folder: Path) -> None:
    colors = ("red", "blue", "green")
    table = [{"color": colors[i % 3], "size": i % 7, "label": ("no", "yes")[i % 2]}
             for i in range(60)]  # fmt: skip
    texts = [{"text": f"{('fine', 'awful')[i % 2]} word{i}", "label": ("good", "bad")[i % 2]}
             for i in range(60)]  # fmt: skip
    for name, rows in {"table": table, "texts": texts}.items():
        _write(folder / f"{name}.csv", rows)
        unlabeled = [{key: value for key, value in row.items() if key != "label"} for row in rows]
        _write(folder / f"{name}-new.csv", unlabeled[:6])


def _write(path: Path, rows: list[dict[str, object]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def command(place: Path) -> Run:
    """The real command, in a process of its own."""

    def run(words: str, **environment: str) -> Answer:
        kept = {key: value for key, value in os.environ.items() if key != "LIMBECK_DATA"}
        done = subprocess.run(
            [sys.executable, "-m", "limbeck", *words.split()],
            cwd=place,
            env=kept | {"OMP_NUM_THREADS": "1"} | environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def inside(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command in this process, where the process is not the point."""
    monkeypatch.chdir(place)
    monkeypatch.delenv("LIMBECK_DATA", raising=False)

    def run(words: str) -> Answer:
        capsys.readouterr()
        status = main(words.split())
        said = capsys.readouterr()
        return Answer(status, said.out, said.err)

    return run
