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
from torch import Tensor, nn

from limbeck.data.arrays import read_npz
from limbeck.data.base import Data
from limbeck.data.load import load_data
from limbeck.data.named import find_named
from limbeck.engine.checkpoint import load_tensors
from limbeck.nn.forward import Forward
from limbeck.reproduce.claims import Claim, Evidence, Scale, at_least, at_most, figure
from limbeck.runs.api import distill, train
from limbeck.runs.execute import Result
from limbeck.runs.job import make_adapter

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
    torch.set_num_threads(1)
    seeds = range(scale.seeds or (FULL_SEEDS if scale.full else SEEDS))
    teacher = _teacher(scale)
    arms = ARMS | FULL_ARMS if scale.full else ARMS
    student = fashion(scale.part(3_000), scale.part(5_000))
    results: dict[str, list[Result]] = {arm: [] for arm in arms}
    for seed in seeds:
        for arm, method in arms.items():
            result = _student(teacher, student, method, seed, scale, f"{arm}/seed-{seed}")
            results[arm].append(result)
            scale.report(f"{arm} seed {seed}: accuracy {result.metrics['test.accuracy']:.4f}")
    return Evidence(NAME, judge(results, student, scale))


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


def _teacher(scale: Scale) -> nn.Module:
    data = fashion(scale.part(12_000), scale.part(5_000))
    result = train(
        network(TEACHER, 0),
        data,
        training=_training(scale.part(8)),
        out=scale.out / "teacher",
        resume=(scale.out / "teacher").exists(),
        progress=False,
    )
    scale.report(f"teacher: accuracy {result.metrics['test.accuracy']:.4f}")
    return result.student


def _student(
    teacher: nn.Module, data: Data, method: dict[str, Any], seed: int, scale: Scale, name: str
) -> Result:
    folder = scale.out / name
    options: dict[str, Any] = {
        "training": _training(scale.part(30)),
        "seed": seed,
        "out": folder,
        "resume": folder.exists(),
        "progress": False,
    }

    def student(number: int) -> nn.Module:
        return network(STUDENT, number)

    if method["name"] == "labels":
        return train(student, data, **options)
    return distill(student, teacher, data, method=method, **options)


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


def judge(results: dict[str, list[Result]], data: Data, scale: Scale) -> list[Claim]:
    """Every claim and figure, accuracies in percent."""
    accuracy = {
        arm: [100 * result.metrics["test.accuracy"] for result in runs]
        for arm, runs in results.items()
    }

    def gain(arm: str, over: str) -> list[float]:
        return [a - b for a, b in zip(accuracy[arm], accuracy[over], strict=True)]

    return [
        *(figure(f"accuracy of {arm}", values) for arm, values in accuracy.items()),
        at_least(
            "factor transfer over labels alone, points",
            gain("ft", "none"),
            1.0,
            paper=PAPER,
            every=True,
        ),
        at_least(
            "factor transfer over a random paraphraser, points", gain("ft", "ft_random"), -0.3
        ),
        at_least("factor transfer + KD over KD, points", gain("ft_kd", "kd"), -0.5),
        figure("factor transfer over KD, points", gain("ft", "kd"), PAPER),
        at_most(
            "share of the features' variance that the paraphraser loses",
            [_lost(scale.out / "ft" / f"seed-{seed}") for seed in range(len(results["ft"]))],
            0.25,
        ),
        at_most(
            "logits of the student in its file against those that were evaluated, difference",
            [_difference(result, data) for result in results["ft"]],
            0.0,
        ),
    ]


def _lost(run: Path) -> float:
    tensors, _ = load_tensors(run / "checkpoints" / "last.safetensors")
    return float(tensors["method.rec_rel"].max())


def _difference(result: Result, data: Data) -> float:
    """Of the plain student, read from its file, from what the run had predicted."""
    tensors, _ = load_tensors(result.run / "student.safetensors")
    student = network(STUDENT, 0).eval()
    student.load_state_dict(tensors)
    predicted, _ = load_tensors(result.run / "predictions.safetensors")
    logits = _logits(student, data)
    return float((logits - predicted["test.logits"]).abs().max())


@torch.inference_mode()
def _logits(student: nn.Module, data: Data) -> Tensor:
    if data.test is None:
        raise ValueError("the reproduction's data have a test split")
    from limbeck.engine.evaluate import collect

    forward = Forward(student, make_adapter(None, data))
    cpu = torch.device("cpu")
    return collect(lambda batch: forward(batch["x"])["logits"], data.test, cpu)
