"""Pre-flight checks that run the teacher, and those that read the data."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from limbeck.data.base import Data, Split
from limbeck.data.fingerprint import sample_hashes
from limbeck.diagnosis.findings import Finding
from limbeck.nn.forward import as_record
from limbeck.nn.input import InputAdapter
from limbeck.students.flow import NORMS

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BETTER = 0.05
"""By how much of the accuracy another preprocessing must be better to be named."""


def preprocessing(
    model: nn.Module, own: InputAdapter, data: Data, x: Tensor, score: Callable[[Tensor], float]
) -> Finding:
    """Whether the teacher is more often right under another normalization.

    Args:
        model: the teacher's network.
        own: its input adapter as it stands.
        data: for its statistics.
        x: samples in the data's scale.
        score: logits to accuracy.
    """
    name = "teacher's preprocessing"
    here = score(_logits(model, own(x)))
    if x.dim() != 4:
        return Finding(name, "good", "as the data is", here)
    tried = {
        label: score(_logits(model, adapter.to(x.device)(x)))
        for label, adapter in _normalizations(data, own.size).items()
    }
    best = max(tried, key=lambda label: tried[label], default="")
    if best and tried[best] > here + BETTER:
        words = f"{tried[best]:.1%} right with {best}, {here:.1%} as it is set: see --teacher.input"
        return Finding(name, "warning", words, tried[best])
    return Finding(name, "good", "no other normalization does better", here)


def _normalizations(data: Data, size: tuple[int, int] | None) -> Mapping[str, InputAdapter]:
    found = {"no normalization": InputAdapter(size=size)}
    if data.mean is not None:
        found["the data's own mean and std"] = InputAdapter(data.mean, data.std, size)
        half = (0.5,) * len(data.mean)
        found["mean 0.5 and std 0.5"] = InputAdapter(half, half, size)
        if len(data.mean) == 3:
            found["ImageNet's mean and std"] = InputAdapter(*IMAGENET, size)
    return found


@torch.no_grad()
def _logits(model: nn.Module, x: Tensor) -> Tensor:
    return torch.cat([as_record(model(part))["logits"] for part in torch.split(x, 256)])


def statistics(model: nn.Module, x: Tensor, score: Callable[[Tensor], float]) -> Finding | None:
    """Whether batch normalization's running statistics fit the data; None: there is none.

    Args:
        model: the teacher's network.
        x: samples as it takes them.
        score: logits to accuracy.
    """
    trial = copy.deepcopy(model).eval()
    norms = [part for part in trial.modules() if isinstance(part, NORMS)]
    if not norms:
        return None
    running = score(_logits(trial, x))
    for norm in norms:
        norm.train()
    batch = score(_logits(trial, x))
    name = "batch normalization"
    if batch > running + BETTER:
        words = (
            f"{batch:.1%} right with the statistics of the batch, {running:.1%} with its running "
            f"ones: they do not belong to these data, or were never updated"
        )
        return Finding(name, "warning", words, batch - running)
    return Finding(name, "good", "running statistics fit the data", batch - running)


def resolution(own: InputAdapter, data: Data) -> Finding | None:
    """Whether images are resized for the teacher; None: they are no images."""
    if len(data.shape) != 3:
        return None
    there = tuple(data.shape[1:])
    if own.size is None or own.size == there:
        return Finding("teacher's resolution", "good", f"{there[0]} x {there[1]}, as the data")
    words = f"images of {there[0]} x {there[1]} are resized to {own.size[0]} x {own.size[1]}"
    return Finding("teacher's resolution", "note", words, own.size[0] / there[0])


def leaks(data: Data) -> list[Finding]:
    """Samples of the training that stand in a split that judges, by content."""
    hashes = sample_hashes(data.train)
    judging: dict[str, Split | None] = {"val": data.val, "test": data.test}
    found = []
    for name, split in judging.items():
        if split is None:
            continue
        shared = int(torch.isin(sample_hashes(split), hashes).sum())
        share = shared / max(len(split), 1)
        words = f"{shared} of {len(split):,} samples of {name} stand in train too"
        found.append(
            Finding(f"leak into {name}", "warning" if share > 0.01 else "good", words, share)
        )
    return found
