"""What the reproductions of a noisy teacher and a pool share: data, teachers, students, arms.

A planted teacher errs on purpose, at a known rate, more often where its margin is small; a real
one is a decision tree, or the student's own network trained on few labels. Everything else is
limbeck as users run it: a pool, validation labels, a method.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from limbeck.data.arrays import read_npz
from limbeck.data.base import ArraySplit, Data
from limbeck.data.fingerprint import sample_hashes
from limbeck.data.load import load_data
from limbeck.data.named import find_named
from limbeck.data.random import derive
from limbeck.errors import RunError
from limbeck.recipe.spec import DataSpec, Recipe
from limbeck.reproduce.claims import Claim, Scale, figure, part, spread
from limbeck.reproduce.parallel import side_by_side
from limbeck.runs.execute import execute
from limbeck.runs.job import make_job

BATCH = 200
HIDDEN = 128
TEST = 5_000
_FEW_LABELS = {"net": 300, "tree": 2_000, "tree3000": 3_000}
"""Labels that real teachers learn from."""

PLAIN, PLAIN_SOFT = {"name": "pseudo_label"}, {"name": "pseudo_label", "hard": False}
ARMS: dict[str, dict[str, Any]] = {
    "plain": PLAIN,
    "slam_auto": {"name": "slam"},
    "slam": {"name": "slam", "curve": "isotonic"},
    "slam_logistic": {"name": "slam", "curve": "logistic"},
    "slam_constant": {"name": "slam", "curve": "constant"},
    "slam_normalized": {"name": "slam", "curve": "isotonic", "normalize": True},
    "weighted": {"name": "weighted"},
    "forward": {"name": "forward"},
    "taylor": {"name": "taylor"},
    "plain_soft": PLAIN_SOFT,
    "slam_soft": {"name": "slam", "hard": False, "curve": "isotonic"},
    "slam_soft_constant": {"name": "slam", "hard": False, "curve": "constant"},
    "slam_soft_k": {"name": "slam", "hard": False, "curve": "isotonic", "mask": "sample"},
    "weighted_soft": {"name": "weighted", "hard": False},
}


@dataclass(frozen=True)
class Case:
    """One setting: the data, the teacher, and how much of everything.

    Attributes:
        data: agnews, fashion, adult or cifar.
        teacher: margin, step or cls (planted), tree or net (real).
        arms: what is trained.
        error: of a planted teacher.
        pool: unlabelled samples.
        val: labelled validation samples.
        epochs: passes over the pool.
    """

    data: str
    teacher: str
    arms: tuple[str, ...]
    error: float = 0.2
    pool: int = 6_000
    val: int = 1_000
    epochs: int = 20

    def scaled(self, share: float) -> Case:
        """A smaller one; validation keeps its size, so that every class stays in it."""
        return replace(
            self, pool=max(BATCH, part(self.pool, share)), epochs=part(self.epochs, share)
        )


def run_cases(cases: Mapping[str, Case], seeds: int, scale: Scale) -> dict[str, Gains]:
    """Train every arm of every case with every seed."""
    calls = [
        (case.scaled(scale.share), arm, seed, scale.out / name / arm / f"seed-{seed}")
        for name, case in cases.items()
        for seed in range(seeds)
        for arm in case.arms
    ]
    accuracies = side_by_side(
        train_arm,
        calls,
        workers=scale.workers,
        report=lambda place, found: scale.report(
            f"{'/'.join(calls[place][3].parts[-3:])}: accuracy {found:.2f} %"
        ),
    )
    found: dict[str, dict[str, list[float]]] = {name: {} for name in cases}
    for (_, arm, _, folder), accuracy in zip(calls, accuracies, strict=True):
        found[folder.parts[-3]].setdefault(arm, []).append(accuracy)
    return {name: Gains(arms) for name, arms in found.items()}


@dataclass(frozen=True)
class Gains:
    """Accuracies in percent by arm, one a seed."""

    accuracy: dict[str, list[float]]

    def over(self, arm: str, base: str) -> list[float]:
        """Points that an arm gains over another, seed by seed."""
        pairs = zip(self.accuracy[arm], self.accuracy[base], strict=True)
        return [ours - theirs for ours, theirs in pairs]


def train_arm(case: Case, arm: str, seed: int, folder: Path) -> float:
    """Train one student, or go on with it; its accuracy in percent."""
    data, teacher = prepare(case, seed)
    width, classes = data.shape[0], len(data.classes)
    if arm == "labels":
        return _labels_alone(data, network(width, classes, seed), seed)
    recipe = Recipe.model_validate(
        {
            "method": {"label_weight": 0.0, **ARMS[arm]},
            "training": _training(case),
            "seed": seed,
        }
    )
    job = make_job(
        recipe, student=lambda s: network(width, classes, s), teachers=[teacher], data=data
    )
    return 100 * execute(job, folder, resume=folder.exists()).metrics["test.accuracy"]


def _labels_alone(data: Data, model: nn.Module, seed: int) -> float:
    """What the validation labels teach by themselves."""
    val, test = data.val.fetch(torch.arange(len(data.val))), data.test
    if test is None:
        raise RunError("the reproduction's data have no test split")
    model = _fit(model, val["x"], val["y"], seed)
    samples = test.fetch(torch.arange(len(test)))
    with torch.no_grad():
        right: Tensor = model(samples["x"]).argmax(1) == samples["y"]
    return 100 * right.double().mean().item()


def _training(case: Case) -> dict[str, Any]:
    """Steps of 200 pool samples beside one labelled sample, whose loss has no weight."""
    return {
        "epochs": case.epochs,
        "batch": 1,
        "pool_ratio": BATCH,
        "optimizer": {"name": "adam", "lr": 1e-3, "weight_decay": 0.0},
        "eval_every": case.epochs,
        "checkpoint_every": case.epochs,
        "log_every": 10_000,
        "device": "cpu",
    }


def network(width: int, classes: int, seed: int) -> nn.Module:
    """One hidden layer, its weights uniform and small."""
    generator = torch.Generator().manual_seed(derive(seed, "student"))
    layers = [nn.Linear(width, HIDDEN), nn.Linear(HIDDEN, classes)]
    for layer, reach in zip(layers, (0.6, 0.4), strict=True):
        bound = reach * math.sqrt(6 / layer.in_features)
        nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.ReLU(), layers[1])


class Planted(nn.Module):
    """A teacher that says of each sample, found by its content, what it was told to."""

    hashes: Tensor
    logits: Tensor

    def __init__(self, x: Tensor, logits: Tensor) -> None:
        super().__init__()
        hashes, order = sample_hashes(ArraySplit(x)).sort()
        self.register_buffer("hashes", hashes)
        self.register_buffer("logits", logits[order])

    def forward(self, x: Tensor) -> Tensor:
        """The logits of known samples [B, C]; those of unknown ones mean nothing."""
        places = torch.searchsorted(self.hashes, sample_hashes(ArraySplit(x)))
        return self.logits[places.clamp(max=len(self.hashes) - 1)]


def prepare(case: Case, seed: int) -> tuple[Data, nn.Module]:
    """The splits of one seed and the teacher for them.

    The pool comes first in the seed's order of the samples, then validation, then what a real
    teacher learns from.
    """
    x, y, test = source(case.data)
    rng = np.random.default_rng(derive(seed, "noisy pool", case.data))
    count = _FEW_LABELS.get(case.teacher, 0)
    order = torch.from_numpy(rng.permutation(len(x)))[: case.pool + case.val + count]
    pool, val, labeled = torch.split(order, [case.pool, case.val, count])
    train = ArraySplit(x[pool[: case.pool // BATCH]], y[pool[: case.pool // BATCH]])
    classes = tuple(map(str, range(int(y.max()) + 1)))
    data = Data(
        name=case.data,
        kind="table",
        train=train,
        val=ArraySplit(x[val], y[val]),
        test=test,
        pool=ArraySplit(x[pool], None, len(train) + torch.arange(len(pool))),
        classes=classes,
        shape=(x.shape[1],),
    )
    if count:
        return data, _real_teacher(case.teacher, x, y, labeled, seed)
    known = torch.cat([val, pool])
    probs = plant(y[known].numpy(), len(classes), case.error, case.teacher, rng)
    everything = torch.cat([x[known], test.x])
    blind = torch.zeros(len(test.x), len(classes))
    return data, Planted(everything, torch.cat([torch.from_numpy(probs).float().log(), blind]))


def _real_teacher(kind: str, x: Tensor, y: Tensor, rows: Tensor, seed: int) -> nn.Module:
    if kind == "net":
        return _fit(network(x.shape[1], int(y.max()) + 1, seed + 1_000), x[rows], y[rows], seed)
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(random_state=seed).fit(x[rows].numpy(), y[rows].numpy())
    probs = torch.from_numpy(tree.predict_proba(x.numpy())).float()
    return Planted(x, probs.clamp(min=1e-12).log())


def _fit(model: nn.Module, x: Tensor, y: Tensor, seed: int) -> nn.Module:
    """60 epochs of labels alone, in batches of 50."""
    generator = torch.Generator().manual_seed(derive(seed, "teacher"))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(60):
        for rows in torch.split(torch.randperm(len(x), generator=generator), 50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return model


Floats = NDArray[np.float64]
_STEP = 0.55
"""Accuracy of the unreliable part of a `step` teacher."""


def plant(
    y: NDArray[np.int64], classes: int, error: float, kind: str, rng: np.random.Generator
) -> Floats:
    """Probabilities [N, C] of a teacher that is wrong on a share `error` of the samples.

    Args:
        y: true class ids.
        classes: C.
        error: mean error.
        kind: `margin`, errors in proportion to 1 - margin; `step`, all errors among the smallest
            margins; `cls`, errors that grow with the class and are blind to the margin.
        rng: draws everything.
    """
    margin = rng.beta(2, 1.2, len(y))
    wrong = rng.random(len(y)) < error_rate(margin, y, classes, error, kind)
    shift = 1 if kind == "cls" else 1 + rng.integers(min(4, classes - 1), size=len(y))
    confused = (y + shift) % classes
    first, second = np.where(wrong, confused, y), np.where(wrong, y, confused)
    return _soft_labels(first, second, margin, classes, rng)


def error_rate(
    margin: Floats, y: NDArray[np.int64], classes: int, error: float, kind: str
) -> Floats:
    """How likely the planted teacher errs on each sample."""
    if kind == "cls":
        return np.asarray(2 * error * y / (classes - 1))
    if kind == "step":
        unreliable = margin <= np.quantile(margin, error / (1 - _STEP))
        return np.where(unreliable, 1 - _STEP, 0.0)
    rate = error * (1 - margin) / (1 - margin).mean()
    return np.asarray(np.minimum(rate, 0.49))


def _soft_labels(
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    margin: Floats,
    classes: int,
    rng: np.random.Generator,
) -> Floats:
    """The first two places by the margin, the rest spread so that none passes the second."""
    rows = np.arange(len(first))
    share = rng.uniform(max(0.3, 2 / classes), 1, len(first))
    runner_up = (1 - margin) * share / 2
    rest = rng.dirichlet([0.5] * classes, len(first))
    rest[rows, first] = rest[rows, second] = 0
    rest /= rest.sum(1, keepdims=True)
    left = (1 - margin) * (1 - share)
    even = np.full_like(rest, 1 / (classes - 2))
    even[rows, first] = even[rows, second] = 0
    allowed = runner_up / np.maximum(left, 1e-12)
    tallest = rest.max(1)
    mixed = np.clip((tallest - allowed) / np.maximum(tallest - 1 / (classes - 2), 1e-12), 0, 1)
    probs: Floats = left[:, None] * (rest + mixed[:, None] * (even - rest))
    probs[rows, second] = runner_up
    probs[rows, first] = runner_up + margin
    return probs + 1e-12


@lru_cache(maxsize=1)
def source(name: str) -> tuple[Tensor, Tensor, ArraySplit]:
    """Samples [N, D], their labels, and the test split."""
    return {"agnews": _table, "adult": _table, "fashion": _fashion, "cifar": _cifar}[name](name)


def _table(name: str) -> tuple[Tensor, Tensor, ArraySplit]:
    options = {"agnews": {"source": "agnews-10k", "features": 200}, "adult": {"source": "adult"}}
    data = load_data(DataSpec.model_validate(options[name]))
    parts = [split for split in (data.train, data.val, data.test) if isinstance(split, ArraySplit)]
    x = torch.cat([split.x for split in parts[:2]])
    y = torch.cat([split.y for split in parts[:2] if split.y is not None])
    return x, y, _first(parts[2])


def _first(split: ArraySplit) -> ArraySplit:
    return split.select(torch.arange(min(TEST, len(split))))


def _fashion(name: str) -> tuple[Tensor, Tensor, ArraySplit]:
    arrays = read_npz(find_named("fashion-mnist"))

    def pooled(images: NDArray[Any]) -> Tensor:
        flat = torch.from_numpy(images).reshape(-1, 1, 28, 28).float()
        return nn.functional.avg_pool2d(flat, 2).flatten(1)

    return _standardized(pooled, arrays)


def _cifar(name: str) -> tuple[Tensor, Tensor, ArraySplit]:
    """The first 128 principal components, of 5,000 images."""
    from sklearn.decomposition import PCA

    arrays = read_npz(find_named("cifar10-20k"))
    flat = torch.from_numpy(arrays["x_train"]).flatten(1).float() / 255
    mean = flat.mean(0)
    pca = PCA(128, svd_solver="randomized", random_state=0).fit((flat[:5_000] - mean).numpy())
    axes = torch.from_numpy(pca.components_.T)

    def projected(images: NDArray[Any]) -> Tensor:
        return (torch.from_numpy(images).flatten(1).float() / 255 - mean) @ axes

    return _standardized(projected, arrays)


def _standardized(
    transform: Callable[[NDArray[Any]], Tensor], arrays: Mapping[str, NDArray[Any]]
) -> tuple[Tensor, Tensor, ArraySplit]:
    x, test = transform(arrays["x_train"]), transform(arrays["x_test"][:TEST])
    mean, std = x.mean(), x.std()
    labels = [torch.from_numpy(arrays[name]).long() for name in ("y_train", "y_test")]
    return (x - mean) / std, labels[0], ArraySplit((test - mean) / std, labels[1][:TEST])


def accuracies(found: Mapping[str, Gains]) -> list[Claim]:
    """The figures that gains are made of."""
    return [
        figure(f"{name}: accuracy of {arm}, %", values)
        for name, gains in found.items()
        for arm, values in gains.accuracy.items()
    ]


def gain_claim(
    claim: str, values: Sequence[float], least: float, paper: str = "", *, share: float = 0.8
) -> Claim:
    """A claim on the mean gain and on the share of the seeds that gain."""
    mean, needed = statistics.fmean(values), math.ceil(share * len(values))
    wins = sum(value > 0 for value in values)
    line = f"mean >= {least:g}, > 0 in {needed} of {len(values)} seeds"
    return Claim(claim, paper, mean, spread(values), line, mean >= least and wins >= needed)


def bounded(claim: str, value: float, low: float, high: float, paper: str = "") -> Claim:
    """A claim that one value lies between two."""
    return Claim(claim, paper, value, 0.0, f"{low:g} to {high:g}", low <= value <= high)
