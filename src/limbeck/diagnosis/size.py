"""The size probe: how many nodes of a student a short spectral training leaves alive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from limbeck.errors import InputError
from limbeck.nn.forward import as_record
from limbeck.students import (
    SpectralPenalty,
    Width,
    export_dense,
    find_width,
    fit_targets,
    spectralize,
)

SPREAD = 3.0
"""Standard deviation that the teacher's logits are brought to, which the penalty is made for."""


def scaled(logits: Tensor) -> Tensor:
    """Logits of mean zero for each sample and of that standard deviation over all."""
    centered = logits - logits.mean(1, keepdim=True)
    return SPREAD * centered / centered.std().clamp(min=1e-12)


def effective_size(
    student: nn.Module,
    train: tuple[Tensor, Tensor],
    held_out: tuple[Tensor, Tensor],
    *,
    strength: float = 1.0,
    epochs: int = 30,
    tolerance: float = 0.02,
    seed: int = 0,
    on_epoch: Callable[[int], None] | None = None,
) -> tuple[nn.Module, Width]:
    """Train the student spectrally on the teacher's logits and find the knee of its error.

    Args:
        student: a network whose hidden nodes can be cut; left as it is.
        train: samples as it takes them, and the teacher's logits.
        held_out: samples and labels to measure the error on.
        strength: factor of the penalty.
        epochs: of the training.
        tolerance: see `find_width`.
        seed: of the order of the samples.
        on_epoch: told of every epoch's end.

    Returns:
        The trained spectral student and its width.

    Raises:
        InputError: its graph cannot be read, or none of its nodes can be cut.
    """
    x, logits = train
    base = SpectralPenalty()
    penalty = SpectralPenalty(strength * base.mu_phi, strength * base.mu_lambda)
    spectral = spectralize(student)
    fit_targets(
        spectral,
        x,
        scaled(logits).to(x.device),
        penalty=penalty,
        epochs=epochs,
        batch=min(128, len(x)),
        seed=seed,
        on_epoch=on_epoch,
    )
    samples, labels = held_out

    def error(model: nn.Module) -> float:
        guess = as_record(model(samples))["logits"].argmax(1)
        return float((guess != labels).double().mean())

    return spectral, find_width(spectral, error, tolerance=tolerance)


def size_report(spectral: nn.Module, width: Width) -> dict[str, Any]:
    """Nodes, parameters, the knee and a row a layer, JSON-ready."""
    before = sum(p.numel() for p in export_dense(spectral).parameters())
    try:
        after = sum(p.numel() for p in export_dense(spectral, width.alive).parameters())
    except InputError:  # constants at padded borders: the count is not known
        after = before
    return {
        "nodes": width.total,
        "needed": width.nodes,
        "parameters": before,
        "parameters_needed": after,
        "jump": width.jump,
        "ramp": {str(count): value for count, value in width.ramp.items()},
        "layers": width.table,
    }
