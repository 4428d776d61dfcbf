"""Several teachers in gradient space: how far they agree, and what each of them weighs.

Teachers' logits are one tensor [M, B, K], or a sequence of [B, K]. A teacher that knows only some
of the classes has logits of -inf at the others: it is heard on its own classes alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from limbeck.errors import InputError
from limbeck.functional._common import check_positive, check_tensor, full_precision
from limbeck.functional.min_norm import check_tolerance, min_norm_weights

Scope = Literal["batch", "batch_mean", "sample"]
CapOn = Literal["alpha", "weight"]
Logits = Sequence[Tensor] | Tensor


@full_precision
def ensemble_losses(
    student: Tensor, teachers: Logits, *, temperature: float = 4.0, per_sample: bool = False
) -> Tensor:
    """T² · KL(softmax(t_m/T) ‖ softmax(s/T)) of every teacher: `kd_loss`, M times in one pass.

    Args:
        student: logits [B, K].
        teachers: logits of M teachers.
        temperature: T > 0.
        per_sample: leave out the mean over the batch.

    Returns:
        [M], or [M, B].
    """
    log_q, log_p, known = _log_probabilities(student, teachers, temperature)
    divergence = torch.where(known, log_p.exp() * (log_p - log_q), 0.0).sum(-1)
    losses = temperature**2 * divergence
    return losses if per_sample else losses.mean(-1)


@full_precision
def ensemble_gradients(student: Tensor, teachers: Logits, *, temperature: float = 4.0) -> Tensor:
    """∂ℓ_m/∂s = T/B · (softmax(s/T) − softmax(t_m/T)): gradients of `ensemble_losses`, [M, B, K].

    In closed form: no backward pass, and the student is a
    constant.
    """
    log_q, log_p, known = _log_probabilities(student.detach(), teachers, temperature)
    difference = torch.where(known, log_q.exp() - log_p.exp(), 0.0)
    return difference * (temperature / len(student))


def _log_probabilities(
    student: Tensor, teachers: Logits, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of the student and of the teachers, and the classes that each one knows.

    All are [M, B, K]; the student's are over the classes of the teacher that it is compared with.
    """
    check_positive(temperature=temperature)
    logits = stack_teachers(student, teachers).detach()
    known = logits != -torch.inf
    ours = student.expand_as(logits)
    if not known.all():
        ours = ours.masked_fill(~known, -torch.inf)
    log_q, log_p = (ours / temperature).log_softmax(-1), (logits / temperature).log_softmax(-1)
    # What nobody asks about must not turn into inf − inf, neither here nor in the backward pass.
    return torch.where(known, log_q, 0.0), torch.where(known, log_p, 0.0), known


def stack_teachers(student: Tensor, teachers: Logits) -> Tensor:
    """The teachers' logits as one tensor [M, B, K].

    Raises:
        InputError: no teacher, or other classes than the student's.
    """
    check_tensor(student, "student logits")
    for number, logits in enumerate(teachers):
        if logits.shape != student.shape:
            raise InputError(
                f"logits of teacher {number} have shape {tuple(logits.shape)} and those of the "
                f"student {tuple(student.shape)}: map the teacher's classes to the student's"
            )
    if not len(teachers):
        raise InputError("there are no teachers' logits")
    return teachers if isinstance(teachers, Tensor) else torch.stack(list(teachers))


@full_precision
def ensemble_weights(
    student: Tensor,
    teachers: Logits,
    *,
    temperature: float = 4.0,
    tolerance: float = 0.6,
    scope: Scope = "batch",
    normalize: bool = False,
    cap_on: CapOn = "alpha",
) -> Tensor:
    """Weights of the teachers from their gradients with respect to the student's logits (AE-KD).

    Args:
        student: logits [B, K].
        teachers: logits of M teachers.
        temperature: T > 0 of the losses.
        tolerance: C, the most that one teacher may weigh, in [1/M, 1].
        scope: as in `gradient_gram`.
        normalize: as in `gram_weights`.
        cap_on: as in `gram_weights`.

    Returns:
        Constants [M], or [B, M] for `scope="sample"`; each row sums to 1.
    """
    if len(teachers) < 2:
        raise InputError("adaptive weights need at least two teachers: with one, use kd_loss")
    gradients = ensemble_gradients(student, teachers, temperature=temperature)
    gram = gradient_gram(gradients, scope=scope)
    weights = gram_weights(gram, tolerance=tolerance, normalize=normalize, cap_on=cap_on)
    return weights.to(gradients)


def feature_gradients(losses: Sequence[Tensor], features: Tensor) -> Tensor:
    """∂ℓ_m/∂f at the student's features before the teachers' adapters: [M, B, ...].

    The graph stays for the losses' own backward pass; nothing is differentiated below `features`.
    """
    found = [torch.autograd.grad(loss, features, retain_graph=True)[0] for loss in losses]
    return torch.stack(found)


@full_precision
def gradient_gram(gradients: Tensor, *, scope: Scope = "batch") -> Tensor:
    """Inner products of the teachers' gradients.

    Args:
        gradients: [M, B, ...], one a teacher.
        scope: `batch`, of the gradients as they are; `batch_mean`, of their means over the batch,
            the space of AnTuo1998/AE-KD, which sees average predictions only; `sample`, one
            Gram a sample.

    Returns:
        [M, M], or [B, M, M], in float64: equal gradients must have equal products.
    """
    check_tensor(gradients, "gradients")
    gradients = (gradients.cpu() if gradients.device.type == "mps" else gradients).double()
    flat = gradients.flatten(2) if gradients.dim() > 2 else gradients[..., None]
    if scope == "batch":
        flat = flat.flatten(1)
    elif scope == "batch_mean":
        flat = flat.mean(1)
    elif scope == "sample":
        flat = flat.transpose(0, 1)
    else:
        raise InputError(f"scope is {scope!r}: it must be 'batch', 'batch_mean' or 'sample'")
    return flat @ flat.mT


def gram_weights(
    gram: Tensor, *, tolerance: float, normalize: bool = False, cap_on: CapOn = "alpha"
) -> Tensor:
    """Weights of the teachers from the Gram of their gradients.

    Args:
        gram: [M, M] or [B, M, M].
        tolerance: C of `min_norm_weights`.
        normalize: find α for gradients of unit length; a teacher's weight is then α_m / ‖g_m‖,
            scaled to sum 1 (AnTuo1998/AE-KD does so for features).
        cap_on: what C bounds where they are normalised: `alpha`, as published, under which one
            short gradient may take almost all of the weight, or `weight`: what lies above C goes
            to the other teachers in proportion.

    Returns:
        [M] or [B, M], rows sum to 1.
    """
    if cap_on not in ("alpha", "weight"):
        raise InputError(f"cap_on is {cap_on!r}: it must be 'alpha' or 'weight'")
    if not normalize:
        return min_norm_weights(gram, tolerance=tolerance)
    double = gram.detach().cpu().double()
    norms = double.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()
    # Gradients of zero length have no direction; among others that are longer they weigh most.
    norms = norms.clamp(min=1e-12 * float(norms.max()) + 1e-150)
    alpha = min_norm_weights(double / (norms[..., None] * norms[..., None, :]), tolerance=tolerance)
    weights = alpha / norms
    weights = weights / weights.sum(-1, keepdim=True)
    if cap_on == "weight":
        rows = [_capped(row.numpy(), tolerance) for row in weights.view(-1, weights.shape[-1])]
        weights = torch.from_numpy(np.stack(rows)).view_as(weights)
    return weights.to(gram)


def _capped(weights: np.ndarray[Any, Any], most: float) -> np.ndarray[Any, Any]:
    """The weights, where one is above `most` shared out among the others in proportion."""
    check_tolerance(most, len(weights))
    full = np.zeros(len(weights), dtype=bool)
    while (over := ~full & (weights > most * (1 + 1e-12))).any():
        full |= over
        rest = np.where(full, 0, weights)
        if not rest.any():
            rest = (~full).astype(float)
        weights = np.where(full, most, rest * max(1 - most * full.sum(), 0) / rest.sum())
    return weights


def gradient_cosines(gram: Tensor) -> Tensor:
    """cos(g_m, g_n) of the gradients behind a Gram [M, M]; a gradient of zero opposes nobody: 1."""
    norms = gram.diagonal().clamp(min=0).sqrt()
    scale = norms[:, None] * norms
    return torch.where(scale > 0, gram / scale.clamp(min=1e-300), 1.0).clamp(-1, 1)


def teacher_agreement(cosines: Tensor) -> Tensor:
    """Each teacher's mean cosine with the others, [M], from all cosines [M, M]."""
    return (cosines.sum(-1) - cosines.diagonal()) / (len(cosines) - 1)


def agreement_gate(cosines: Tensor) -> Tensor:
    """Which teachers are heard, bool [M]: those whose gradients do not oppose the others'.

    A teacher whose mean cosine with the others is not above 0 is left out. Nobody is where fewer
    than two would remain, as of two equal camps, which gradients cannot tell apart
    (`opposed_camps`).

    Args:
        cosines: of the gradients, [M, M], best as running means over steps.
    """
    heard = teacher_agreement(cosines) > 0
    if bool(heard.all()) or (int(heard.sum()) >= 2 and not opposed_camps(cosines)):
        return heard
    return torch.ones_like(heard)


def opposed_camps(cosines: Tensor) -> tuple[list[int], list[int]] | None:
    """Two groups of equal size that agree within and oppose each other, None: there are none."""
    with_first = cosines[0] > 0
    with_first[0] = True
    camps = with_first.nonzero()[:, 0].tolist(), (~with_first).nonzero()[:, 0].tolist()
    same = with_first[:, None] == with_first
    apart = bool((cosines[~same] < 0).all()) and bool((cosines[same] > 0).all())
    return camps if len(camps[0]) == len(camps[1]) and apart else None
