"""Classes that are more frequent in the pool than among the validation samples, or less."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from limbeck.functional.noise import as_distribution, margins

SIGNIFICANT = 1e-3
_SINGULAR = 0.02
_RATIO = (0.1, 10.0)


@dataclass(frozen=True)
class LabelShift:
    """Whether a validation set and a pool differ in the frequencies of their classes.

    Attributes:
        p_classes: p value of the χ² test that the teacher's decisions are as frequent on both.
        p_margins: p value of the Kolmogorov-Smirnov test that its margins are distributed alike.
        ratios: class frequency in the pool over that among the validation samples, [C]; None
            where the teacher confuses classes too much to tell.
    """

    p_classes: float
    p_margins: float
    ratios: Tensor | None

    @property
    def found(self) -> bool:
        """Whether the class frequencies differ beyond chance (p < 0.001)."""
        return self.p_classes < SIGNIFICANT

    def sample_weight(self, target: Tensor) -> Tensor | None:
        """Weights [V] that give validation samples the pool's class frequencies.

        None where there is nothing to correct, or no way to.
        """
        if not self.found or self.ratios is None:
            return None
        return self.ratios[target.cpu()]


def label_shift(teacher_probs: Tensor, target: Tensor, pool_teacher_probs: Tensor) -> LabelShift:
    """Compare the teacher's decisions on validation samples and on the pool.

    The ratios r solve Ĉ r = μ, with Ĉ the joint frequencies of decision and true class on the
    validation samples and μ those of the decisions on the pool; least squares, within [0.1, 10].
    Lipton, Wang and Smola, Detecting and Correcting for Label Shift (ICML 2018).

    Args:
        teacher_probs: on the validation samples [V, C].
        target: their true class ids [V].
        pool_teacher_probs: on the pool [N, C].
    """
    from scipy.stats import ks_2samp

    ours, theirs = as_distribution(teacher_probs), as_distribution(pool_teacher_probs)
    classes = ours.shape[1]
    counts = np.stack([np.bincount(p.argmax(1), minlength=classes) for p in (ours, theirs)])
    joint = np.zeros((classes, classes))
    np.add.at(joint, (ours.argmax(1), np.asarray(target.cpu())), 1 / len(ours))
    margin_test = ks_2samp(margins(ours), margins(theirs))
    return LabelShift(_chi_square(counts), float(margin_test.pvalue), _ratios(joint, counts[1]))


def _chi_square(counts: NDArray[Any]) -> float:
    """p value that both rows of counts come from one distribution."""
    from scipy.stats import chi2_contingency

    seen = counts[:, counts.sum(0) > 0]
    return float(chi2_contingency(seen).pvalue) if seen.shape[1] > 1 else 1.0


def _ratios(joint: NDArray[Any], pool_counts: NDArray[Any]) -> Tensor | None:
    left, singular, right = np.linalg.svd(joint)
    if singular[-1] < _SINGULAR:
        return None
    share = pool_counts / pool_counts.sum()
    found = right.T @ ((left.T @ share) / singular)
    return torch.from_numpy(np.clip(found, *_RATIO))


def effective_size(sample_weight: Tensor) -> float:
    """(Σ v)² / Σ v²: how many equally weighted samples would be as sure."""
    return float(sample_weight.sum() ** 2 / sample_weight.square().sum())
