"""Run and comparison folders as a real training leaves them, from the digits of scikit-learn."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file
from sklearn.datasets import load_digits

TEACHER = {"model": "limbeck:convnet?widths=32,64", "parameters": 61_962}


@dataclass(frozen=True)
class Arm:
    """How good the fake students of an arm are: `skill` moves their logits to the truth."""

    method: dict[str, object] | None
    skill: float
    agreement: float = 0.5


ARMS = {
    "none": Arm(None, 1.45, 0.0),
    "kd": Arm({"name": "kd", "temperature": 4.0, "weight": 0.9}, 1.41, 0.3),
    "kd_tuned": Arm({"name": "kd", "temperature": 2.0, "weight": 0.5}, 1.45, 0.3),
    "rkd": Arm({"name": "rkd", "distance": 25.0, "angle": 50.0}, 1.32, 0.02),
}


def _accuracy(logits: np.ndarray, y: np.ndarray) -> float:
    return float((logits.argmax(1) == y).mean())


def _measures(prefix: str, logits: np.ndarray, y: np.ndarray) -> dict[str, float]:
    logits = logits - logits.max(1, keepdims=True)
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    nll = float(-np.log(chances[np.arange(len(y)), y]).mean())
    gap = abs(float(chances.max(1).mean()) - _accuracy(logits, y))
    return {f"{prefix}.accuracy": _accuracy(logits, y), f"{prefix}.nll": nll, f"{prefix}.ece": gap}


class Bench:
    """Test and validation samples with logits that share their hard cases over all models."""

    def __init__(self, samples: int = 450) -> None:
        self.images, self.y = (part[:samples] for part in load_digits(return_X_y=True))
        self.y = self.y.astype(np.int64)
        self.hard = np.random.default_rng(7).normal(size=(samples, 10))

    def logits(self, skill: float, seed: int) -> np.ndarray:
        noise = np.random.default_rng(seed).normal(size=self.hard.shape)
        truth = np.eye(10)[self.y]
        return (2.0 * (2.2 * skill * truth + 0.7 * self.hard + 0.7 * noise)).astype(np.float32)

    def pictures(self, rows: list[int]) -> np.ndarray:
        return self.images[rows].reshape(-1, 1, 8, 8) / 16


def write_run(folder: Path, arm: str, seed: int, bench: Bench, given: Arm | None = None) -> None:
    """One run folder."""
    given = given or ARMS[arm]
    folder.mkdir(parents=True)
    number = sorted(ARMS).index(arm) if arm in ARMS else 9
    teacher = bench.logits(1.9, 1000)
    own = bench.logits(given.skill, 100 * number + seed)
    student = (1 - given.agreement) * own + given.agreement * 0.5 * (own + teacher)
    arrays = {"test.logits": student, "test.y": bench.y, "val.logits": own, "val.y": bench.y}
    metrics = _measures("test", student, bench.y) | _measures("val", own, bench.y)
    if given.method:
        arrays |= {"teacher.test.logits": teacher, "teacher.val.logits": teacher}
        agreement = float((student.argmax(1) == teacher.argmax(1)).mean())
        metrics["test.agreement"] = agreement
    own = dict(metrics)
    for epoch in ("last", "best"):
        metrics |= {f"{epoch}.{key}": value for key, value in own.items()}
    metrics["best.epoch"] = 17.0
    save_file({key: np.ascontiguousarray(value) for key, value in arrays.items()},
              folder / "predictions.safetensors")  # fmt: skip
    (folder / "metrics.jsonl").write_text(_events(metrics, given.skill, seed))
    card = _card(given, seed, metrics, bench, teacher)
    (folder / "card.json").write_text(json.dumps(card))
    (folder / "data.json").write_text(json.dumps({"source": "digits", "train": 300, "test": 450}))
    (folder / "environment.json").write_text(json.dumps({"torch": "2.13.0", "device": "cpu"}))
    _recipe(folder / "recipe.yaml", {"method": given.method})


def _events(metrics: dict[str, float], skill: float, seed: int) -> str:
    random = np.random.default_rng(seed)
    lines = []
    for epoch in range(1, 21):
        left = np.exp(-epoch / 5)
        for part in (0.5, 1.0):
            step = int(20 * (epoch - 1 + part))
            loss = 0.05 + 2.3 * np.exp(-step / 80) / skill + 0.02 * random.random()
            terms = {"labels": loss / 2, "kd": loss / 2}
            lines.append({"event": "train", "step": step, "epoch": epoch, "lr": 0.05 * left,
                          "loss": loss, "terms": terms})  # fmt: skip
        accuracy = metrics["val.accuracy"] * (1 - 0.5 * left) - 0.01 * random.random()
        lines.append({"event": "val", "step": 20 * epoch, "epoch": epoch, "accuracy": accuracy,
                      "nll": 0.2 + left, "ece": 0.05})  # fmt: skip
    lines.append({"event": "final", "metrics": metrics})
    return "".join(json.dumps(line) + "\n" for line in lines)


def _card(arm: Arm, seed: int, metrics: dict, bench: Bench, teacher: np.ndarray) -> dict:
    known = {
        "metrics": _measures("test", teacher, bench.y),
        "latency_ms": {"1": 0.62, "256": 21.4},
    }
    return {
        "limbeck": "0.1.0",
        "task": "classification",
        "model": {
            "source": "limbeck:convnet?widths=4,8",
            "parameters": 1_170,
            "bytes": 4_680,
            "latency_ms": {"1": 0.13 + 0.002 * seed, "256": 1.8 + 0.01 * seed},
        },
        "input": {"shape": [1, 8, 8], "mean": [0.3], "std": [0.4], "size": None,
                  "scale": "images in [0, 1]"},
        "classes": [str(digit) for digit in range(10)],
        "teachers": [TEACHER | known] if arm.method else [],
        "method": arm.method,
        "metrics": metrics,
        "data": {"source": "digits"},
        "seed": seed,
        "exports": {},
    }  # fmt: skip


def _recipe(path: Path, more: dict) -> None:
    recipe = {"task": "classification", "student": "limbeck:convnet?widths=4,8",
              "teachers": [{"model": TEACHER["model"]}], "data": {"source": "digits"},
              "training": {"epochs": 20, "metric": "accuracy"}}  # fmt: skip
    path.write_text(yaml.safe_dump(recipe | more, sort_keys=False))


def write_comparison(folder: Path, bench: Bench, seeds: int = 5, arms: dict | None = None) -> Path:
    """A comparison folder."""
    arms = arms or ARMS
    for arm, given in arms.items():
        for seed in range(seeds):
            write_run(folder / "arms" / arm / f"seed-{seed}", arm, seed, bench, given)
    order = {arm: {"method": "kd"} for arm in arms if arm not in ("none", "kd_tuned")}
    _recipe(folder / "recipe.yaml", {"compare": {"arms": order, "seeds": seeds,
                                                 "metric": "accuracy"}})  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def bench() -> Bench:
    return Bench()


@pytest.fixture(scope="session")
def comparison(tmp_path_factory: pytest.TempPathFactory, bench: Bench) -> Path:
    """Four arms, five seeds; tests that change it must copy it first."""
    return write_comparison(tmp_path_factory.mktemp("report") / "comparison", bench)


@pytest.fixture
def make_run(bench: Bench) -> Callable[..., None]:
    """Writes a run folder: (folder, arm, seed)."""
    return partial(write_run, bench=bench)


@pytest.fixture
def make_comparison(bench: Bench) -> Callable[..., Path]:
    """Writes a comparison folder: (folder, seeds=, arms=)."""
    return partial(write_comparison, bench=bench)
