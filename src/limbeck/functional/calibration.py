"""How good predicted probabilities are: calibration error, log-likelihood, Brier score.

Probabilities are [N, C] with rows that sum to 1; targets are class ids [N].
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from limbeck.functional._common import (
    check_labels,
    check_positive,
    check_tensor,
    full_precision,
    one_hot,
)


@full_precision
def ece(
    probabilities: Tensor,
    target: Tensor,
    *,
    bins: int = 15,
    closed: Literal["right", "left"] = "right",
) -> Tensor:
    """Expected calibration error Σ_b n_b/N · |accuracy_b − confidence_b| over bins of one width.

    On Calibration of Modern Neural Networks (ICML 2017): the confidence is the largest probability,
    bins are (low, high]. cs-giung/giung2@c8560fd:giung2/evaluation/calibration.py.

    Args:
        probabilities: [N, C].
        target: class ids [N].
        bins: number of bins on [0, 1].
        closed: the edge that belongs to a bin; `left` is [low, high) with 1.0 in the last one.
    """
    check_tensor(probabilities, "probabilities")
    check_labels(probabilities, target)
    check_positive(bins=bins)
    confidence, predicted = probabilities.max(1)
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64, device=confidence.device)[1:-1]
    which = torch.bucketize(confidence.double(), edges, right=closed == "left")
    surplus = (predicted == target).to(confidence.dtype) - confidence
    return surplus.new_zeros(bins).index_add(0, which, surplus).abs().sum() / len(surplus)


@full_precision
def nll(probabilities: Tensor, target: Tensor, *, floor: float | None = None) -> Tensor:
    """Mean of −log p(y): scikit-learn's `log_loss`.

    Args:
        probabilities: [N, C].
        target: class ids [N].
        floor: the smallest probability that counts as one; None: the precision's machine epsilon.
    """
    check_tensor(probabilities, "probabilities")
    check_labels(probabilities, target)
    floor = torch.finfo(probabilities.dtype).eps if floor is None else floor
    chosen = probabilities.gather(1, target.unsqueeze(1))
    return -chosen.clamp(min=floor).log().mean()


@full_precision
def brier(probabilities: Tensor, target: Tensor) -> Tensor:
    """Mean of Σ_c (p_c − 1[c = y])², between 0 and 2: Brier (1950).

    For two classes this is twice what scikit-learn's `brier_score_loss` gives by default.
    """
    check_tensor(probabilities, "probabilities")
    check_labels(probabilities, target)
    return (probabilities - one_hot(probabilities, target)).square().sum(1).mean()
