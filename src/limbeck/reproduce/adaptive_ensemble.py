"""Adaptive ensemble distillation (Du et al., NeurIPS 2020) with a planted bad teacher.

Four teachers learn from 4,000 small images of Fashion-MNIST; a fifth one learns permuted labels. A
student hears four good ones, or three good ones and the bad one, with labels in its loss and
without: the plain mean of the teachers, their adaptive weights, both behind the agreement gate, and
one good teacher alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from limbeck.reproduce.claims import Claim, Evidence, Scale, at_least, at_most, figure, part
from limbeck.reproduce.factor_transfer import load_network, network
from limbeck.reproduce.parallel import one_thread, side_by_side
from limbeck.reproduce.small_fashion import small_fashion
from limbeck.runs.api import distill, train

NAME = "adaptive-ensemble"
SEEDS = 3
TEACHER = ((12, 1), (24, 2), (48, 2))
STUDENT = ((8, 1), (16, 2), (32, 2))
GOOD, BAD = 4, 4
"""Good teachers; and the place of the bad one after them."""

MEAN = {"tolerance": 0.25, "gate": False}
GATED_MEAN = {"tolerance": 0.25}
ADAPTIVE = {"tolerance": 0.6, "gate": False}
GATED: dict[str, Any] = {"tolerance": 0.6}
BATCH_MEAN = ADAPTIVE | {"scope": "batch_mean"}
UNLABELLED = {"label_weight": 0.0, "weight": 1.0}


@dataclass(frozen=True)
class Arm:
    """Whom a student hears, and how.

    Attributes:
        options: of the method.
        bad: whether the bad teacher stands in for the fourth good one.
        alone: the first good teacher only, by plain KD.
    """

    options: dict[str, Any]
    bad: bool = True
    alone: bool = False


ARMS = {
    "clean mean": Arm(MEAN, bad=False),
    "clean gated adaptive": Arm(GATED, bad=False),
    "bad mean": Arm(MEAN),
    "bad adaptive": Arm(ADAPTIVE),
    "bad adaptive, batch means": Arm(BATCH_MEAN),
    "bad gated adaptive": Arm(GATED),
    "one good teacher": Arm({"label_weight": 1.0, "weight": 0.9}, alone=True),
    "no labels, bad mean": Arm(MEAN | UNLABELLED),
    "no labels, bad adaptive": Arm(ADAPTIVE | UNLABELLED),
    "no labels, bad gated mean": Arm(GATED_MEAN | UNLABELLED),
    "no labels, bad gated adaptive": Arm(GATED | UNLABELLED),
    "no labels, one good teacher": Arm(UNLABELLED, alone=True),
}
PAPER = "CIFAR-100: adaptive weights above the plain mean of three teachers and more"


def measure(scale: Scale) -> Evidence:
    """Train the teachers of each seed, then every arm, and judge the claims."""
    seeds = range(scale.seeds or SEEDS)
    one_thread()
    teachers = [
        (scale.out, seed, place, scale.share) for seed in seeds for place in range(GOOD + 1)
    ]
    _run(train_teacher, teachers, scale, "teacher")
    calls = [(scale.out, seed, arm, scale.share) for seed in seeds for arm in ARMS]
    found = _run(train_arm, calls, scale, "student")
    runs: dict[str, list[dict[str, Any]]] = {arm: [] for arm in ARMS}
    for (_, _, arm, _), result in zip(calls, found, strict=True):
        runs[arm].append(result)
    return Evidence(NAME, judge(runs))


def _run(function: Any, calls: list[tuple[Any, ...]], scale: Scale, what: str) -> list[Any]:
    def told(place: int, found: dict[str, Any]) -> None:
        scale.report(f"{what} {calls[place][1:3]}: accuracy {found['accuracy']:.2f}")

    return side_by_side(function, calls, workers=scale.workers, report=told)


def train_teacher(out: Path, seed: int, place: int, share: float) -> dict[str, Any]:
    """One teacher; that at the last place learns labels that are three classes off."""
    folder = _teacher_folder(out, seed, place)
    data = small_fashion(part(4_000, share), part(5_000, share), shift=3 if place == BAD else 0)
    result = train(
        network(TEACHER, 10 * seed + place),
        data,
        training=_training(part(20, share), 0.1),
        seed=10 * seed + place,
        out=folder,
        resume=folder.exists(),
        progress=False,
    )
    return {"accuracy": 100 * result.metrics["test.accuracy"]}


def train_arm(out: Path, seed: int, arm: str, share: float) -> dict[str, Any]:
    """One student: its accuracy in percent, its NLL, and what it heard."""
    folder = out / arm.replace(", ", "-").replace(" ", "-") / f"seed-{seed}"
    chosen = ARMS[arm]
    name = "kd" if chosen.alone else "adaptive_ensemble"
    result = distill(
        student,
        _teachers(out, seed, chosen),
        small_fashion(part(4_000, share), part(5_000, share)),
        method={"name": name, "temperature": 4.0, **chosen.options},
        training=_training(part(12, share), 0.05),
        seed=seed,
        out=folder,
        resume=folder.exists(),
        progress=False,
    )
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    weights = [line["figures"]["weights"] for line in lines if "weights" in line.get("figures", {})]
    warned = {
        place for place in range(GOOD) if f"teacher {place} " in (folder / "log.txt").read_text()
    }
    return {
        "accuracy": 100 * result.metrics["test.accuracy"],
        "nll": result.metrics["test.nll"],
        "last_weight": sum(row[-1] for row in weights) / max(len(weights), 1),
        "warned": sorted(warned),
    }


def student(seed: int) -> nn.Module:
    """A fresh student."""
    return network(STUDENT, seed)


def _teachers(out: Path, seed: int, arm: Arm) -> list[nn.Module]:
    places = [0] if arm.alone else [0, 1, 2, BAD if arm.bad else 3]
    return [load_network(TEACHER, _teacher_folder(out, seed, place)) for place in places]


def _teacher_folder(out: Path, seed: int, place: int) -> Path:
    return out / "teachers" / f"seed-{seed}-{place}"


def _training(epochs: int, lr: float) -> dict[str, Any]:
    return {
        "epochs": epochs,
        "batch": 64,
        "optimizer": {"lr": lr, "momentum": 0.9, "weight_decay": 5e-4},
        "schedule": {"name": "cosine", "warmup": 0.15 * epochs},
        "eval_every": epochs,
        "checkpoint_every": epochs,
        "device": "cpu",
    }


def judge(runs: dict[str, list[dict[str, Any]]]) -> list[Claim]:
    """Every figure and claim.

    Args:
        runs: what `train_arm` found, one a seed, by arm.
    """

    def of(arm: str, key: str) -> list[float]:
        return [run[key] for run in runs[arm]]

    def over(arm: str, other: str, key: str) -> list[float]:
        return [a - b for a, b in zip(of(arm, key), of(other, key), strict=True)]

    gated, mean = "bad gated adaptive", "bad mean"
    bare, blind = "bad adaptive", "bad adaptive, batch means"
    free, free_mean = "no labels, bad gated mean", "no labels, bad mean"
    warned = [run["warned"] for run in runs[gated]]
    wrongly = [float(len(set(run["warned"]) - {GOOD - 1})) for run in runs[gated]]
    clean = [float(len(run["warned"])) for run in runs["clean gated adaptive"]]
    return [
        *(figure(f"accuracy of {arm}", of(arm, "accuracy"), PAPER) for arm in runs),
        *(figure(f"NLL of {arm}", of(arm, "nll")) for arm in runs),
        *(
            at_least(
                f"{case}: gated adaptive over mean, points of accuracy",
                over(f"{case} gated adaptive", f"{case} mean", "accuracy"),
                -1.0,
            )
            for case in ("clean", "bad")
        ),
        at_most("bad: NLL of gated adaptive less that of mean", over(gated, mean, "nll"), -0.01),
        at_most("bad: weight of the bad teacher behind the gate", of(gated, "last_weight"), 0.02),
        figure("bad: weight of the bad teacher without the gate", of(bare, "last_weight")),
        at_least(
            "bad: the bad teacher is named, share of seeds",
            [float(GOOD - 1 in names) for names in warned],
            1.0,
        ),
        at_most("good teachers that the gate left out", [*wrongly, *clean], 0.0),
        at_least(
            "no labels, bad: gated mean over mean, points of accuracy",
            over(free, free_mean, "accuracy"),
            0.0,
            every=True,
        ),
        at_most("no labels, bad: NLL of gated mean less mean", over(free, free_mean, "nll"), -0.02),
        at_most(
            "no labels, bad: adaptive without the gate collapses, accuracy",
            of("no labels, bad adaptive", "accuracy"),
            70.0,
        ),
        at_least(
            "bad: flattened over batch means, points of accuracy",
            over(bare, blind, "accuracy"),
            0.5,
        ),
        at_least("bad: NLL of batch means less flattened", over(blind, bare, "nll"), 0.05),
    ]
