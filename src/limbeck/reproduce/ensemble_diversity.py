"""An ensemble's diversity (Nam et al., NeurIPS 2021): a student of four members, four teachers.

Four small perceptrons fit 3,000 small images of Fashion-MNIST until they agree on them. A batch
ensemble learns from them on these images, on noisy ones, and on those that ConfODS moves to where
the teachers disagree. Does each member then follow its own teacher, and the student the ensemble?
"""

from __future__ import annotations

from functools import partial
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

import limbeck.functional as F
from limbeck.data.base import Data, Record, Split
from limbeck.data.collect import collect
from limbeck.engine.checkpoint import load_tensors
from limbeck.errors import RunError
from limbeck.models.small import mlp
from limbeck.nn.forward import Forward
from limbeck.reproduce.claims import Claim, Evidence, Scale, at_least, at_most, figure, part
from limbeck.reproduce.parallel import one_thread, side_by_side
from limbeck.reproduce.small_fashion import CLASSES, small_fashion
from limbeck.runs.api import distill, train
from limbeck.runs.models import make_adapter
from limbeck.students import BatchEnsemble, batch_ensemble

NAME = "ensemble-diversity"
SEEDS, MEMBERS = 3, 4
STEP = 7.65
"""Grey levels: 0.03 of the range."""
SHAPE = (1, 14, 14)

COMMON: dict[str, Any] = {"name": "ensemble_diversity", "share": 0.9, "step": STEP}
ARMS = {
    "kd": COMMON | {"perturb": "none"},
    "gaussian": COMMON | {"perturb": "gaussian"},
    "conf_ods": COMMON | {"perturb": "conf_ods"},
}
PAPER = "CIFAR-100, WRN-28-10: BE-4 by KD NLL 0.804, by ConfODS 0.670, four teachers 0.670"


def measure(scale: Scale) -> Evidence:
    """Train the teachers of each seed, then every arm, and judge the claims."""
    seeds = range(scale.seeds or SEEDS)
    one_thread()
    places = [(scale.out, seed, place, scale.share) for seed in seeds for place in range(MEMBERS)]
    _run(train_teacher, places, scale)
    calls = [(scale.out, seed, arm, scale.share) for seed in seeds for arm in ARMS]
    found = _run(train_arm, calls, scale)
    runs: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
    for (_, _, arm, _), figures in zip(calls, found, strict=True):
        runs[arm].append(figures)
    ensembles = [study_teachers(scale.out, seed, scale.share) for seed in seeds]
    return Evidence(NAME, judge(runs, ensembles))


def _run(function: Any, calls: list[tuple[Any, ...]], scale: Scale) -> list[dict[str, float]]:
    def told(place: int, found: dict[str, float]) -> None:
        words = ", ".join(f"{name} {value:.4f}" for name, value in found.items())
        scale.report(f"{calls[place][1:3]}: {words}")

    return side_by_side(function, calls, workers=scale.workers, report=told)


def data_of(share: float) -> Data:
    """What teachers and students learn from alike."""
    return small_fashion(part(3_000, share), part(5_000, share))


def train_teacher(out: Path, seed: int, place: int, share: float) -> dict[str, float]:
    """One teacher, which fits its images without any weight decay."""
    folder = _folder(out, seed, place)
    result = train(
        _perceptron(64, MEMBERS * seed + place),
        data_of(share),
        training=_training(part(60, share), 3e-3),
        seed=MEMBERS * seed + place,
        out=folder,
        resume=folder.exists(),
        progress=False,
    )
    return {"accuracy": result.metrics["test.accuracy"]}


def train_arm(out: Path, seed: int, arm: str, share: float) -> dict[str, float]:
    """One student, and how it compares with its teachers on the test images."""
    folder, data = out / arm / f"seed-{seed}", data_of(share)
    teachers = [_teacher(out, seed, place) for place in range(MEMBERS)]
    result = distill(
        lambda seed: batch_ensemble(_perceptron(320, seed), MEMBERS, seed=seed),
        teachers,
        data,
        method=ARMS[arm],
        training=_training(part(40, share), 2e-3),
        seed=seed,
        out=folder,
        resume=folder.exists(),
        progress=False,
    )
    return compare(result.student, teachers, data)


def compare(student: nn.Module, teachers: list[nn.Module], data: Data) -> dict[str, float]:
    """Quality of a student of several members, and its fidelity to its teachers."""
    if not isinstance(student, BatchEnsemble):
        raise RunError("the delivered student has no members")
    (ours, y), (ours_val, y_val) = (
        _answers([student.member(m) for m in range(len(student))], data, split)
        for split in ("test", "val")
    )
    theirs, _ = _answers(teachers, data, "test")
    theirs_val, _ = _answers(teachers, data, "val")
    others = [
        float(F.member_kl(ours[m], theirs[t]))
        for m, t in product(range(MEMBERS), repeat=2)
        if m != t
    ]
    scaled = F.calibrate_probabilities(ours.mean(0), ours_val.mean(0), y_val)
    curve = F.ensemble_curve(theirs, y, theirs_val, y_val)
    return {
        "accuracy": float((ours.mean(0).argmax(-1) == y).float().mean()),
        "nll": float(F.nll(ours.mean(0), y)),
        "ece": float(F.ece(ours.mean(0), y)),
        "calibrated nll": float(F.nll(scaled, y)),
        "disagreement": float(F.pairwise_disagreement(ours)),
        "member kl": float(F.member_kl(ours, theirs)),
        "member kl to others": fmean(others),
        "ensemble kl": float(F.member_kl(ours.mean(0), theirs.mean(0))),
        "equivalent": min(F.deep_ensemble_equivalent(curve, -float(F.nll(scaled, y))), 99.0),
    }


def study_teachers(out: Path, seed: int, share: float) -> dict[str, float]:
    """How much the teachers disagree on images that they fitted, on moved, and on new ones."""
    data = data_of(share)
    teachers = [_teacher(out, seed, place) for place in range(MEMBERS)]
    train_said, _ = _answers(teachers, data, "train")
    test_said, y = _answers(teachers, data, "test")
    rows = torch.arange(len(data.train))
    x = data.train.fetch(rows)["x"].float() / 255
    adapter = make_adapter(None, data)
    weights = 2 * torch.rand(len(x), CLASSES, generator=torch.Generator().manual_seed(seed)) - 1
    spread = F.output_spread(lambda images: teachers[0](adapter(images)), x, weights)
    moved = F.diversify(x, spread, step=STEP, confident=False)
    with torch.no_grad():
        moved_said = torch.stack([one(adapter(moved)).double().softmax(-1) for one in teachers])
    return {
        "train": float(F.pairwise_kl(train_said)),
        "moved": float(F.pairwise_kl(moved_said)),
        "test": float(F.pairwise_kl(test_said)),
        "accuracy": float((test_said.mean(0).argmax(-1) == y).float().mean()),
        "nll": float(F.nll(test_said.mean(0), y)),
        "disagreement": float(F.pairwise_disagreement(test_said)),
    }


def _answers(models: list[nn.Module], data: Data, name: str) -> tuple[Tensor, Tensor]:
    """Probabilities (M, N, K) in float64 of models on a split, and its labels."""
    split: Split = data.splits[name]
    if split.y is None:
        raise RunError(f"the {name} split has no labels")
    forwards = [Forward(model.eval(), make_adapter(None, data)) for model in models]
    said = [collect(partial(_logits, forward), split) for forward in forwards]
    return torch.stack(said).double().softmax(-1), split.y


def _logits(forward: Forward, batch: Record) -> Tensor:
    return forward(batch["x"])["logits"]


def _perceptron(width: int, seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return mlp(classes=CLASSES, shape=SHAPE, widths=(width, width))


def _teacher(out: Path, seed: int, place: int) -> nn.Module:
    tensors, _ = load_tensors(_folder(out, seed, place) / "student.safetensors")
    model = _perceptron(64, 0)
    model.load_state_dict(tensors)
    return model.eval()


def _folder(out: Path, seed: int, place: int) -> Path:
    return out / "teachers" / f"seed-{seed}-{place}"


def _training(epochs: int, lr: float) -> dict[str, Any]:
    return {
        "epochs": epochs,
        "batch": 64,
        "optimizer": {"name": "adam", "lr": lr, "weight_decay": 0.0},
        "schedule": {"name": "cosine", "warmup": 0.15 * epochs},
        "eval_every": epochs,
        "checkpoint_every": epochs,
        "device": "cpu",
    }


def judge(
    runs: dict[str, list[dict[str, float]]], ensembles: list[dict[str, float]]
) -> list[Claim]:
    """Every figure and claim.

    Args:
        runs: what `train_arm` found, one a seed, by arm.
        ensembles: what `study_teachers` found, one a seed.
    """

    def of(arm: str, key: str) -> list[float]:
        return [run[key] for run in runs[arm]]

    def over(key: str, arm: str) -> list[float]:
        return [a / b for a, b in zip(of("conf_ods", key), of(arm, key), strict=True)]

    def less(key: str, arm: str) -> list[float]:
        return [a - b for a, b in zip(of("conf_ods", key), of(arm, key), strict=True)]

    own = [
        a - b
        for a, b in zip(
            of("conf_ods", "member kl"), of("conf_ods", "member kl to others"), strict=True
        )
    ]
    ratio = [one["moved"] / one["train"] for one in ensembles]
    return [
        *(figure(f"teachers: {key}", [one[key] for one in ensembles]) for key in ensembles[0]),
        *(
            figure(f"{arm}: {key}", of(arm, key), PAPER if key == "nll" else "")
            for arm in runs
            for key in runs[arm][0]
        ),
        at_least("teachers' KL on moved over training images, least", [min(ratio)], 4.0),
        *(
            at_most(f"{key}, conf_ods over {arm}", over(key, arm), most)
            for key in ("member kl", "ensemble kl")
            for arm, most in (("kd", 0.80), ("gaussian", 0.90))
        ),
        at_least(
            "members' disagreement, conf_ods less kd", less("disagreement", "kd"), 0.0, every=True
        ),
        at_most("NLL, conf_ods less kd, mean", [fmean(less("nll", "kd"))], 0.01),
        at_most("KL to the own teacher less that to the others", own, 0.0),
    ]
