"""How often a teacher is right, and among how many classes the truth is, sample by sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from limbeck.errors import InputError

Array = NDArray[np.float64]
Curve = Literal["auto", "isotonic", "logistic", "constant"]

LOGISTIC_BELOW = 300
"""Validation samples from which on a free monotone curve has the smaller error."""
HIGHEST = 0.995
"""α of 1 is plain cross-entropy, which no validation set is large enough to justify."""
_GRID = 257


@dataclass(frozen=True)
class Steps:
    """A curve through (x, y), linear between the points and constant outside."""

    x: Array
    y: Array

    def __call__(self, values: Array) -> Array:
        """The curve at `values`."""
        return np.interp(values, self.x, self.y)


@dataclass(frozen=True)
class NoiseModel:
    """What a validation set says of a teacher; made by `calibrate_noise`.

    Attributes:
        accuracy: of the teacher on the validation samples.
        curve: the kind of curve that was fitted.
        by_margin: α as a function of the margin, within its bounds.
        by_mass: for k = 2, 3, ... the accuracy of the k likeliest classes by their joint
            probability; every further k holds the truth always.
        coverage: how often the truth shall be among the k(x) classes.
        k_constant: the smallest k with that coverage over all validation samples.
    """

    accuracy: float
    curve: str
    by_margin: Steps
    by_mass: Sequence[Steps]
    coverage: float
    k_constant: int

    def alpha(self, teacher_probs: Tensor) -> Tensor:
        """The teacher's accuracy for samples with these probabilities, [B, C] to [B]."""
        found = self.by_margin(margins(as_distribution(teacher_probs)))
        return _like(found, teacher_probs)

    def top_accuracy(self, teacher_probs: Tensor) -> Tensor:
        """How likely the truth is among the k likeliest, k = 2 ... C: [B, C] to [B, C − 1]."""
        mass = _top_mass(as_distribution(teacher_probs))
        found = np.ones((len(mass), mass.shape[1] - 1))
        for column, steps in enumerate(self.by_mass):
            found[:, column] = steps(mass[:, column + 1])
        return _like(np.maximum.accumulate(found, 1), teacher_probs)

    def k(self, teacher_probs: Tensor) -> Tensor:
        """The smallest k whose classes hold the truth with the wanted coverage, int64 [B]."""
        enough = self.top_accuracy(teacher_probs.double()) >= self.coverage
        return 2 + enough.int().argmax(1)


def calibrate_noise(
    teacher_probs: Tensor,
    target: Tensor,
    *,
    curve: Curve = "auto",
    lower: float = 0.5,
    upper: float | None = None,
    coverage: float = 0.9,
    sample_weight: Tensor | None = None,
) -> NoiseModel:
    """Fit α(x), the teacher's accuracy, and k(x) on samples that the teacher has not learned from.

    α is a non-decreasing function of the margin (largest minus second probability): isotonic least
    squares, or from few samples a logistic curve, or one number. The bounds are put on the fitted
    values before they are interpolated. k(x) is the smallest k whose classes hold the truth with
    the wanted coverage, from isotonic curves on the classes' joint probability.
    SLaM: Student-Label Mixing for Distillation with Unlabeled Examples (NeurIPS 2023), section 3.

    Args:
        teacher_probs: probabilities [V, C].
        target: true class ids [V].
        curve: `auto` is logistic below 300 samples and isotonic from there on.
        lower: smallest α; below 1/2 plain mixing would push away from the label (1/k normalized).
        upper: largest α; None is 1 − 1/(V + 2), at most 0.995.
        coverage: how often the truth shall be among the k(x) classes, in (0, 1].
        sample_weight: of the samples [V], where classes are not as frequent as in the pool.

    Returns:
        The model: `.alpha(probs)`, `.k(probs)`, `.by_margin` for a figure.

    Raises:
        InputError: no samples, shapes that do not fit, or rows that are no distribution.
    """
    probs, y = as_distribution(teacher_probs), np.asarray(target.cpu())
    if y.shape != probs.shape[:1]:
        raise InputError(f"target has shape {y.shape}, teacher_probs {probs.shape}: one label each")
    weight = np.ones(len(y)) if sample_weight is None else as_floats(sample_weight)
    right = (probs.argmax(1) == y).astype(float)
    accuracy = float(np.average(right, weights=weight))
    high = min(HIGHEST, 1 - 1 / (len(y) + 2)) if upper is None else upper
    kind = _kind(curve, right)
    steps = _fit(kind, margins(probs), right, weight, (lower, max(lower, high)))
    rank = ranks(probs, y)
    by_mass = _top_curves(probs, rank, weight)
    return NoiseModel(accuracy, kind, steps, by_mass, coverage, _constant_k(rank, weight, coverage))


def _constant_k(rank: NDArray[np.int64], weight: Array, coverage: float) -> int:
    """The smallest k >= 2 that holds the truth often enough."""
    held = np.cumsum(np.bincount(rank, weights=weight)) / weight.sum()
    return max(2, 1 + int((held >= coverage - 1e-12).argmax()))


def _kind(curve: str, right: Array) -> str:
    if curve not in ("auto", "isotonic", "logistic", "constant"):
        raise InputError(
            f"curve is {curve!r}: it must be 'auto', 'isotonic', 'logistic' or 'constant'"
        )
    if curve == "auto":
        curve = "logistic" if len(right) < LOGISTIC_BELOW else "isotonic"
    return "constant" if right.min() == right.max() else curve


def _fit(
    kind: str, margin: Array, right: Array, weight: Array, bounds: tuple[float, float]
) -> Steps:
    if kind == "isotonic":
        return isotonic(margin, right, weight, bounds)
    if kind == "logistic" and (steps := _logistic(margin, right, weight, bounds)):
        return steps
    return Steps(np.zeros(1), np.clip(np.average(right, weights=weight, keepdims=True), *bounds))


def isotonic(x: Array, y: Array, weight: Array, bounds: tuple[float, float] = (0.0, 1.0)) -> Steps:
    """Non-decreasing least squares of y on x, its values clipped before they are interpolated."""
    from sklearn.isotonic import IsotonicRegression

    fit = IsotonicRegression(y_min=bounds[0], y_max=bounds[1], out_of_bounds="clip")
    fit.fit(x, y, sample_weight=weight)
    return Steps(np.asarray(fit.X_thresholds_, float), np.asarray(fit.y_thresholds_, float))


def _logistic(
    margin: Array, right: Array, weight: Array, bounds: tuple[float, float]
) -> Steps | None:
    """A rising logistic curve; None where accuracy falls with the margin."""
    from sklearn.linear_model import LogisticRegression

    # Next to no shrinkage: it keeps the slope finite where the margin separates all errors.
    fit = LogisticRegression(C=1e3, tol=1e-8, max_iter=1000)
    fit.fit(margin[:, None], right, sample_weight=weight)
    if fit.coef_[0, 0] <= 0:
        return None
    x = np.linspace(margin.min(), margin.max(), _GRID)
    return Steps(x, np.clip(fit.predict_proba(x[:, None])[:, 1], *bounds))


def _top_curves(probs: Array, rank: NDArray[np.int64], weight: Array) -> list[Steps]:
    """Accuracy of the k likeliest by their mass, k = 2, 3, ... up to the first without a miss."""
    mass, curves = _top_mass(probs), []
    for k in range(2, probs.shape[1]):
        hit = (rank < k).astype(float)
        if hit.min() == 1:
            break
        curves.append(isotonic(mass[:, k - 1], hit, weight))
    return curves


def margins(probs: Array) -> Array:
    """Largest minus second probability of each row."""
    top = np.partition(probs, -2, axis=1)[:, -2:]
    return np.asarray(top[:, 1] - top[:, 0])


def ranks(probs: Array, y: NDArray[Any]) -> NDArray[np.int64]:
    """Where the true class stands, 0 for the likeliest; ties go to the smaller class id."""
    order = np.argsort(-probs, axis=1, kind="stable")
    return np.asarray((order == y[:, None]).argmax(1))


def _top_mass(probs: Array) -> Array:
    """Joint probability of the 1, 2, ... likeliest classes."""
    return np.cumsum(-np.sort(-probs, axis=1), 1)


def as_floats(values: Tensor) -> Array:
    """A tensor as a float64 array."""
    return values.detach().cpu().double().numpy()


def as_distribution(probs: Tensor) -> Array:
    """Probabilities [N, C] as float64 array.

    Raises:
        InputError: no samples, fewer than two classes, or rows that are no distribution.
    """
    values = as_floats(torch.as_tensor(probs))
    if values.ndim != 2 or not len(values) or values.shape[1] < 2:
        raise InputError(f"probabilities have shape {values.shape}: [N, C] with C >= 2 is needed")
    total = values.sum(1)
    if not np.isfinite(total).all():
        row = int(np.flatnonzero(~np.isfinite(total))[0])
        raise InputError(f"the scores of sample {row} are not finite")
    if values.min() < 0 or np.abs(total - 1).max() > 1e-3:
        raise InputError(
            f"the scores are not a distribution (row sums {total.min():.3g} to "
            f"{total.max():.3g}); give probabilities, for example logits.softmax(-1)"
        )
    return values


def _like(values: Array, tensor: Tensor) -> Tensor:
    return torch.from_numpy(values).to(tensor.device, tensor.dtype)
