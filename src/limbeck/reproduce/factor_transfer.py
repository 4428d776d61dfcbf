"""Factor transfer (Kim, Park and Kwak, NeurIPS 2018) on Fashion-MNIST, with its controls.

A teacher of six convolutions learns from 12,000 images; a student of three learns from 3,000 of
them: alone, with KD, with factor transfer, with both, and with a paraphraser that was left at its
random start, which shows what the paraphraser itself adds. The two plain arms learn first.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

from limbeck.data.arrays import read_npz
from limbeck.data.base import Data
from limbeck.data.collect import collect
from limbeck.data.load import load_data
from limbeck.data.named import find_named
from limbeck.engine.checkpoint import load_tensors
from limbeck.errors import RunError
from limbeck.nn.forward import Forward
from limbeck.reproduce.claims import Claim, Evidence, Scale, at_least, at_most, figure, part
from limbeck.reproduce.parallel import one_thread, side_by_side
from limbeck.runs.api import distill, train
from limbeck.runs.models import make_adapter

NAME = "factor-transfer"
SEEDS, FULL_SEEDS = 3, 5
CLASSES = 10
TEACHER = ((24, 2), (24, 1), (48, 2), (48, 1), (96, 2), (96, 1))
STUDENT = ((8, 2), (16, 2), (32, 2))

KD = {"name": "kd", "temperature": 4.0, "weight": 0.9, "label_weight": 0.1}
FT: dict[str, Any] = {"name": "factor_transfer", "taps": [("features", "features")]}
ARMS: dict[str, dict[str, Any]] = {
    "none": {"name": "labels"},
    "kd": KD,
    "ft": FT,
    "ft_kd": {**FT, "kd_weight": 0.9, "label_weight": 0.1},
    "ft_random": {**FT, "prepare": {"epochs": 0}},
}
FULL_ARMS: dict[str, dict[str, Any]] = {
    "fitnet": {"name": "fitnet", "weight": 1.0, "taps": [("features", "features")]},
    "ft_p2": {**FT, "p": 2},
    "ft_beta500": {**FT, "beta": 500.0},
}
PAPER = "CIFAR-10, ResNet-56 to ResNet-20, error: scratch 7.78, KD 7.19, factor transfer 6.85 %"


def measure(scale: Scale) -> Evidence:
    """Train every arm with every seed and judge the claims."""
    seeds = range(scale.seeds or (FULL_SEEDS if scale.full else SEEDS))
    arms = ARMS | FULL_ARMS if scale.full else ARMS
    one_thread()
    teacher = _teacher(scale)
    calls = [
        (teacher, scale.out / arm / f"seed-{seed}", method, seed, scale.share)
        for seed in seeds
        for arm, method in arms.items()
    ]
    metrics = side_by_side(
        train_arm,
        calls,
        workers=scale.workers,
        report=lambda place, found: scale.report(
            f"{'/'.join(calls[place][1].parts[-2:])}: accuracy {found['test.accuracy']:.4f}"
        ),
    )
    accuracy: dict[str, list[float]] = {arm: [] for arm in arms}
    for (_, folder, *_), found in zip(calls, metrics, strict=True):
        accuracy[folder.parent.name].append(100 * found["test.accuracy"])
    return Evidence(NAME, judge(accuracy, [scale.out / "ft" / f"seed-{s}" for s in seeds], scale))


def fashion(train: int, test: int) -> Data:
    """The first images of Fashion-MNIST; those from 55,000 on are the validation split."""
    arrays = read_npz(find_named("fashion-mnist"))
    return load_data(
        {
            "x_train": arrays["x_train"][:train],
            "y_train": arrays["y_train"][:train],
            "x_val": arrays["x_train"][55_000:56_000],
            "y_val": arrays["y_train"][55_000:56_000],
            "x_test": arrays["x_test"][:test],
            "y_test": arrays["y_test"][:test],
        }
    )


def network(layers: Sequence[tuple[int, int]], seed: int) -> nn.Sequential:
    """3x3 convolutions of (channels, stride) with normalization and ReLU, the mean, a classifier.

    The last maps are the tap `features`.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        units = [
            nn.Sequential(
                nn.Conv2d(inputs, channels, 3, stride, 1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
            )
            for (inputs, _), (channels, stride) in pairwise([(1, 1), *layers])
        ]
        model = nn.Sequential()
        model.add_module("features", nn.Sequential(*units))
        model.add_module("pool", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
        model.add_module("linear", nn.Linear(layers[-1][0], CLASSES))
        return model


def _teacher(scale: Scale) -> Path:
    """Train the teacher, and say where it is."""
    folder = scale.out / "teacher"
    result = train(
        network(TEACHER, 0),
        fashion(part(12_000, scale.share), part(5_000, scale.share)),
        training=_training(part(8, scale.share)),
        out=folder,
        resume=folder.exists(),
        progress=False,
    )
    scale.report(f"teacher: accuracy {result.metrics['test.accuracy']:.4f}")
    return folder


def train_arm(
    teacher: Path, folder: Path, method: dict[str, Any], seed: int, share: float
) -> dict[str, float]:
    """One training of a student; a run that stands in the folder goes on, or is read."""
    data = student_data(share)
    options: dict[str, Any] = {
        "training": _training(part(30, share)),
        "seed": seed,
        "out": folder,
        "resume": folder.exists(),
        "progress": False,
    }
    if method["name"] == "labels":
        return train(student, data, **options).metrics
    return distill(student, load_network(TEACHER, teacher), data, method=method, **options).metrics


def student_data(share: float) -> Data:
    """The student's images, the first of the teacher's."""
    return fashion(part(3_000, share), part(5_000, share))


def student(seed: int) -> nn.Module:
    """A fresh student."""
    return network(STUDENT, seed)


def load_network(layers: Sequence[tuple[int, int]], run: Path) -> nn.Module:
    """The network that a run has delivered."""
    tensors, _ = load_tensors(run / "student.safetensors")
    model = network(layers, 0)
    model.load_state_dict(tensors)
    return model.eval()


def _training(epochs: int) -> dict[str, Any]:
    optimizer = {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
    return {
        "epochs": epochs,
        "batch": 64,
        "optimizer": optimizer,
        "schedule": {"name": "cosine", "warmup": 0.15 * epochs},
        "eval_every": epochs,
        "checkpoint_every": epochs,
        "device": "cpu",
    }


def judge(accuracy: dict[str, list[float]], runs: Sequence[Path], scale: Scale) -> list[Claim]:
    """Every figure and claim.

    Args:
        accuracy: in percent, one a seed, by arm.
        runs: the folders of factor transfer's runs.
        scale: how much was done.
    """

    def gain(arm: str, over: str) -> list[float]:
        return [a - b for a, b in zip(accuracy[arm], accuracy[over], strict=True)]

    return [
        *(figure(f"accuracy of {arm}", values) for arm, values in accuracy.items()),
        at_least(
            "ft over none, points of accuracy",
            gain("ft", "none"),
            1.0,
            paper=PAPER,
            every=True,
        ),
        at_least("ft over ft_random, points of accuracy", gain("ft", "ft_random"), -0.3),
        at_least("ft_kd over kd, points of accuracy", gain("ft_kd", "kd"), -0.5),
        figure("ft over kd, points of accuracy", gain("ft", "kd"), PAPER),
        at_most(
            "share of the variance that the paraphraser loses", [_lost(run) for run in runs], 0.25
        ),
        at_most(
            "logits of the delivered student against those evaluated, difference",
            [_difference(run, scale.share) for run in runs],
            0.0,
        ),
    ]


def _lost(run: Path) -> float:
    tensors, _ = load_tensors(run / "checkpoints" / "last.safetensors")
    return float(tensors["method.rec_rel"].max())


def _difference(run: Path, share: float) -> float:
    """Of the plain student, read from its file, from what the run had predicted."""
    data = student_data(share)
    if data.test is None:
        raise RunError("the reproduction's data have no test split")
    forward = Forward(load_network(STUDENT, run), make_adapter(None, data))
    logits = collect(lambda batch: forward(batch["x"])["logits"], data.test)
    predicted, _ = load_tensors(run / "predictions.safetensors")
    return float((logits - predicted["test.logits"]).abs().max())
