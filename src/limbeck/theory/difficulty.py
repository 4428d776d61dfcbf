"""How hard a task is for a student, from its kernel: data inefficiency, risk bound, best mix.

Ji and Zhu, Knowledge Distillation in Wide Neural Networks (NeurIPS 2020). The kernels are those of
each output, [C, N, N] (see `limbeck.theory.Tangent.kernel`); everything here is float64.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from limbeck.data.random import generator
from limbeck.errors import InputError
from limbeck.functional.effective import correction_threshold, effective_logits, soft_weight

RIDGE = 1e-4
"""Of the mean diagonal entry of the kernel; theory with exact kernels takes 1e-8."""


def ridged(kernel: Tensor, ridge: float) -> Tensor:
    """The kernel [C, N, N] plus `ridge` times its mean diagonal entry.

    Raises:
        InputError: a kernel of zeros: no gradient reaches a parameter.
    """
    diagonal = kernel.diagonal(dim1=1, dim2=2)
    mean = diagonal.mean(1)
    if not bool((mean > 0).all()):
        raise InputError("the student's gradients are zero, as of dead units: draw another start")
    return kernel + torch.diag_embed((ridge * mean)[:, None].expand_as(diagonal))


def factorize(kernel: Tensor, ridge: float) -> Tensor:
    """L of L Lᵀ = the kernel with its ridge, [C, N, N].

    Raises:
        InputError: the kernel is singular, as with samples that stand twice, and the ridge small.
    """
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(ridged(kernel, ridge))
    if bool(failed.any()):
        raise InputError(
            f"the kernel is singular with a ridge of {ridge:g}: samples stand twice, or there are "
            f"more of them than parameters; raise the ridge"
        )
    return factor


class KernelStudent:
    """A linearized student on some samples: one factorization serves every target.

    Args:
        kernel: Θ(X, X), [C, N, N].
        ridge: relative to the mean diagonal.
    """

    def __init__(self, kernel: Tensor, *, ridge: float = RIDGE) -> None:
        self.kernel = ridged(kernel, ridge)
        self.factor = factorize(kernel, ridge)

    def solve(self, residual: Tensor) -> Tensor:
        """Θ⁻¹ of each output's residual: [N, C] to [C, N]."""
        solution: Tensor = torch.cholesky_solve(residual.T[..., None], self.factor)
        return solution[..., 0]

    def predict(self, residual: Tensor, cross: Tensor) -> Tensor:
        """What the student adds to its start, [M, C], trained to `residual` [N, C].

        Args:
            residual: targets minus the outputs at the start.
            cross: Θ(held out, X), [C, M, N].
        """
        return (cross @ self.solve(residual)[..., None])[..., 0].T

    def norm(self, residual: Tensor) -> float:
        """‖Δ‖, how far the parameters must go."""
        return math.sqrt(float((residual.T * self.solve(residual)).sum()))

    @property
    def condition(self) -> float:
        """Largest over smallest eigenvalue of the worst output's kernel."""
        values = torch.linalg.eigvalsh(self.kernel)
        return float((values[:, -1] / values[:, 0]).max())


def weight_norms(kernel: Tensor, residual: Tensor, *, ridge: float = RIDGE) -> Tensor:
    """‖Δ_n‖ after the first n samples, for every n from one factorization: [N].

    With Θ = L Lᵀ and q = L⁻¹ z it is ‖Δ_n‖² = Σ_{i≤n} q_i².

    Args:
        kernel: [C, N, N].
        residual: targets minus outputs at the start, [N, C].
        ridge: relative to the mean diagonal.
    """
    factor = factorize(kernel, ridge)
    q = torch.linalg.solve_triangular(factor, residual.T[..., None].contiguous(), upper=False)
    norms: Tensor = q[..., 0].square().sum(0).cumsum(0).sqrt()
    return norms


def mean_log_norms(
    kernel: Tensor, residual: Tensor, *, orders: int = 6, ridge: float = RIDGE, seed: int = 0
) -> Tensor:
    """E ln ‖Δ_n‖ over random orders of the samples, [N]."""
    total = torch.zeros(len(residual), dtype=torch.float64)
    for order in range(orders):
        draw = torch.randperm(len(residual), generator=generator(seed, "order", order))
        norms = weight_norms(kernel[:, draw][:, :, draw], residual[draw], ridge=ridge)
        total += norms.clamp(min=1e-150).log()
    return total / orders


def data_inefficiency(log_norms: Tensor) -> Tensor:
    """I(n) = n (E ln‖Δ_{n+1}‖ − E ln‖Δ_n‖) for n = 1 .. N − 1: [N − 1]. Noisy; see the window."""
    count = torch.arange(1, len(log_norms), dtype=log_norms.dtype)
    return count * log_norms.diff()


def window_inefficiency(log_norms: Tensor, first: int, last: int) -> float:
    """I over a window: the slope of E ln‖Δ_n‖ against ln n between two sample counts."""
    rise = float(log_norms[last - 1] - log_norms[first - 1])
    return rise / math.log(last / first)


def risk_bound(norm: float, oracle_norm: float, values: Tensor, diagonal: Tensor) -> float:
    """A bound on how often the student's sign differs from the oracle's.

    P[β(x) > π/2 − α] with cos α = ‖Δ_n‖ / ‖Δ_*‖ and cos β(x) = |f_*(x)| / (√Θ(x,x) ‖Δ_*‖). It
    holds for a student that starts at zero, and says little until ‖Δ_n‖ has come near ‖Δ_*‖.

    Args:
        norm: ‖Δ_n‖.
        oracle_norm: ‖Δ_*‖.
        values: f_* of samples of the distribution, [M].
        diagonal: Θ(x, x) of them, [M].
    """
    alpha = oracle_angle(norm, oracle_norm)
    beta = torch.acos((values.abs() / (diagonal.sqrt() * oracle_norm)).clamp(max=1))
    return float((beta > math.pi / 2 - alpha).double().mean())


def oracle_angle(norm: float, oracle_norm: float) -> float:
    """α with cos α = ‖Δ_n‖ / ‖Δ_*‖: how far the student's parameters are from the oracle's."""
    return math.acos(min(1.0, norm / oracle_norm))


@dataclass(frozen=True)
class Cell:
    """What is predicted for one mix of soft and hard labels.

    Attributes:
        soft_ratio: ρ.
        temperature: T.
        weight: α of the usual loss α T² KL + (1 − α) CE with the same minimum.
        error: share of the held-out samples that the linearized student gets wrong.
        norm: ‖Δ‖.
        inefficiency: I over the last two doublings of the samples.
    """

    soft_ratio: float
    temperature: float
    weight: float
    error: float
    norm: float
    inefficiency: float


@dataclass(frozen=True)
class Difficulty:
    """The grid, its best cell, and what the teacher gets wrong.

    Attributes:
        cells: every mix.
        best: the cell of the smallest predicted error; ties go to more of the teacher.
        teacher_error: share of the training samples that the teacher gets wrong.
        corrected: of those, the share whose sign the hard labels turn at the best cell.
        condition: of the kernel with its ridge.
    """

    cells: Sequence[Cell]
    best: Cell
    teacher_error: float
    corrected: float
    condition: float


def difficulty(
    kernel: Tensor,
    cross: Tensor,
    start: tuple[Tensor, Tensor],
    teacher: Tensor,
    labels: tuple[Tensor, Tensor],
    *,
    soft_ratios: Sequence[float] = (1.0, 0.9, 0.7, 0.5, 0.3, 0.1, 0.01),
    temperatures: Sequence[float] = (1.0, 2.0, 4.0),
    ridge: float = RIDGE,
    orders: int = 4,
    seed: int = 0,
) -> Difficulty:
    """Predict the validation error of every mix of soft and hard labels.

    Args:
        kernel: Θ(X, X), [C, N, N].
        cross: Θ(held out, X), [C, M, N].
        start: the student's outputs at its start on X and held out, [N, C] and [M, C].
        teacher: its logits on X, [N, C]; C = 1 is a binary task with labels 0 and 1.
        labels: of X and of the held-out samples, [N] and [M].
        soft_ratios: ρ of the grid, each in (0, 1].
        temperatures: T of the grid.
        ridge: relative to the mean diagonal of the kernel.
        orders: of the samples, averaged over in the inefficiency.
        seed: of those orders.

    Raises:
        InputError: fewer than 8 samples, labels of one class alone, or values out of range.
    """
    y, y_held_out = labels
    if len(y) < 8 or len(y.unique()) < 2:  # type: ignore[no-untyped-call]
        raise InputError(
            f"{len(y)} samples of one class or fewer than 8 say nothing about a task's difficulty"
        )
    student = KernelStudent(kernel, ridge=ridge)
    condition = student.condition
    if condition > 1e12:
        warnings.warn(
            f"the kernel's condition is {condition:.0e}: I(n) is unreliable, raise the ridge",
            stacklevel=2,
        )
    cells = []
    for temperature in temperatures:
        for ratio in soft_ratios:
            target = mixed_targets(teacher, y, ratio, temperature)
            residual = target - _gauged(start[0])
            predicted = start[1] + student.predict(residual, cross)
            log_norms = mean_log_norms(kernel, residual, orders=orders, ridge=ridge, seed=seed)
            cells.append(
                Cell(
                    ratio,
                    temperature,
                    soft_weight(ratio, temperature=temperature),
                    float((decide(predicted) != y_held_out).double().mean()),
                    student.norm(residual),
                    window_inefficiency(log_norms, max(2, len(y) // 4), len(y)),
                )
            )
    best = min(cells, key=lambda cell: (cell.error, -cell.soft_ratio, -cell.temperature))
    wrong = decide(teacher) != y
    return Difficulty(
        cells, best, float(wrong.double().mean()), _corrected(teacher, y, best), condition
    )


def mixed_targets(teacher: Tensor, y: Tensor, soft_ratio: float, temperature: float) -> Tensor:
    """Effective logits [N, C], one column for a binary teacher of one logit."""
    binary = teacher.shape[1] == 1
    given = teacher[:, 0] if binary else teacher
    found = effective_logits(given, y, soft_ratio=soft_ratio, temperature=temperature)
    return found[:, None] if binary else found


def _gauged(logits: Tensor) -> Tensor:
    """Mean zero over the classes, as effective logits have it; one logit stays."""
    return logits - logits.mean(1, keepdim=True) if logits.shape[1] > 1 else logits


def decide(logits: Tensor) -> Tensor:
    """The class of each row of logits; of one logit, whether it is above zero."""
    if logits.shape[1] == 1:
        return (logits[:, 0] > 0).long()
    return logits.argmax(1)


def _corrected(teacher: Tensor, y: Tensor, cell: Cell) -> float:
    wrong = (decide(teacher) != y).nonzero().flatten()
    if not len(wrong):
        return 1.0
    if teacher.shape[1] == 1:
        margin = teacher[wrong, 0]
    else:
        margin = teacher[wrong].amax(1) - teacher[wrong, y[wrong]]
    threshold = correction_threshold(margin, temperature=cell.temperature)
    return float((cell.soft_ratio < threshold).double().mean())
