"""An ensemble's diversity: its loss for a student of several members, and how to measure it.

Probabilities of M members are [M, N, K].
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as tf
from torch import Tensor

from limbeck.errors import InputError
from limbeck.functional._common import (
    check_fraction,
    check_labels,
    check_pair,
    check_tensor,
    full_precision,
)
from limbeck.functional.calibration import nll
from limbeck.functional.logits import kd_loss

SUBSETS = 20
"""Of one size, at most, whose ensembles are averaged over."""


@full_precision
def ensemble_diversity_loss(
    student: Tensor,
    teacher: Tensor,
    clean: Tensor,
    target: Tensor,
    *,
    temperature: float = 1.0,
    share: float = 0.9,
) -> Tensor:
    """(1 − a) CE(clean, y) + a T² KL(teachers ‖ members), member by member.

    Diversity Matters When Learning From Ensembles (NeurIPS 2021);
    cs-giung/giung2@c8560fd:projects/Diversity-Matters.

    Args:
        student: members' logits on perturbed inputs [M · B, K], the first member's rows first.
        teacher: the teachers' logits on the same inputs, each beside its member.
        clean: members' logits on the inputs as they are [M · B, K].
        target: class ids [B].
        temperature: T > 0.
        share: a, of the teachers in the loss.
    """
    check_pair(student, clean, "logits on perturbed and on clean inputs")
    check_fraction(share=share)
    if len(clean) % len(target):
        raise InputError(
            f"{len(clean)} rows of logits for {len(target)} targets: every member needs a row for "
            f"each target"
        )
    labels = tf.cross_entropy(clean, target.repeat(len(clean) // len(target)))
    return (1 - share) * labels + share * kd_loss(student, teacher, temperature=temperature)


def log_mean_probability(logits: Tensor) -> Tensor:
    """log of the mean of the members' probabilities, [M, ..., K] to [..., K]."""
    return logits.log_softmax(-1).logsumexp(0) - math.log(len(logits))


def pairwise_disagreement(probabilities: Tensor) -> Tensor:
    """Share of samples on which two members predict different classes, the mean over pairs."""
    predicted = _members(probabilities).argmax(-1)
    pairs = itertools.combinations(predicted, 2)
    return torch.stack([(one != other).float().mean() for one, other in pairs]).mean()


@full_precision
def pairwise_kl(probabilities: Tensor) -> Tensor:
    """Mean of KL(p_j ‖ p_i) over samples and ordered pairs of members i ≠ j."""
    logs = _logs(_members(probabilities))
    entropy = (logs.exp() * logs).sum()
    # Σ_i≠j of a sum of products is that of the sums, less the pairs i = j.
    crossed = (logs.exp().sum(0) * logs.sum(0)).sum() - entropy
    count = len(logs)
    return (entropy * (count - 1) - crossed) / (count * (count - 1) * logs.shape[1])


@full_precision
def member_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean of KL(teacher_m ‖ member_m): how well each member follows its own teacher.

    Args:
        student: probabilities [M, N, K], or of the two ensembles [N, K].
        teacher: probabilities of the same shape.
    """
    check_pair(student, teacher, "probabilities")
    ours, theirs = _logs(student), _logs(teacher)
    return (theirs.exp() * (theirs - ours)).sum(-1).mean()


def _members(probabilities: Tensor) -> Tensor:
    check_tensor(probabilities, "probabilities of the members", dimensions=3)
    if len(probabilities) < 2:
        raise InputError("diversity needs at least two members, there is one")
    return probabilities


def _logs(probabilities: Tensor) -> Tensor:
    return probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).log()


def fit_temperature(log_probabilities: Tensor, target: Tensor) -> float:
    """The t in [e⁻³, e³] that makes softmax(log p / t) likeliest: temperature scaling.

    On Calibration of Modern Neural Networks (ICML 2017). The likelihood is concave in 1/t, so its
    slope is halved down to its root. Fit it on validation samples, never on those of the test.

    Args:
        log_probabilities: logits or log-probabilities [N, K].
        target: class ids [N].
    """
    check_labels(log_probabilities, target)
    logs = log_probabilities.double()
    truth = logs.gather(1, target[:, None]).mean()
    low, high = -3.0, 3.0
    for _ in range(48):
        middle = (low + high) / 2
        softened = (logs * math.exp(-middle)).softmax(-1)
        # Where the expected logit is below that of the truth, a lower t does better.
        low, high = (low, middle) if (softened * logs).sum(-1).mean() < truth else (middle, high)
    return math.exp((low + high) / 2)


def calibrate_probabilities(probabilities: Tensor, validation: Tensor, target: Tensor) -> Tensor:
    """Probabilities [N, K] at the temperature that fits `validation` [V, K] and `target` [V]."""
    temperature = fit_temperature(_logs(validation), target)
    return (_logs(probabilities) / temperature).softmax(-1)


def ensemble_curve(
    probabilities: Tensor, target: Tensor, validation: Tensor, validation_target: Tensor
) -> list[float]:
    """Calibrated log-likelihood of ensembles of 1, 2, ..., M of the members.

    The mean over the subsets of a size, or over 20 of them spread evenly where there are more;
    each has its own temperature. Pitfalls of In-Domain Uncertainty Estimation (ICLR 2020).

    Args:
        probabilities: of the members on test samples [M, N, K].
        target: class ids [N].
        validation: of the members on validation samples [M, V, K].
        validation_target: class ids [V].
    """

    def likelihood(chosen: Sequence[int]) -> float:
        mean, held_out = (part[list(chosen)].mean(0) for part in (probabilities, validation))
        return -nll(
            calibrate_probabilities(mean.double(), held_out.double(), validation_target), target
        ).item()

    curve = []
    for size in range(1, len(probabilities) + 1):
        subsets = list(itertools.combinations(range(len(probabilities)), size))
        subsets = subsets[:: -(-len(subsets) // SUBSETS)]
        curve.append(sum(map(likelihood, subsets)) / len(subsets))
    return curve


def deep_ensemble_equivalent(curve: Sequence[float], likelihood: float) -> float:
    """How many networks an ensemble would need to be as likely: Ashukha et al. (ICLR 2020).

    Args:
        curve: calibrated log-likelihoods of 1, 2, ..., M networks, from `ensemble_curve`.
        likelihood: of the student, calibrated in the same way.

    Returns:
        A number of networks, linear between the sizes; 0 where one network is better, infinity
        where all of them are not as good.
    """
    best = list(itertools.accumulate(curve, max))
    if likelihood < best[0]:
        return 0.0
    if likelihood > best[-1]:
        return math.inf
    above = next(place for place, value in enumerate(best) if value >= likelihood)
    if above == 0:
        return 1.0
    return above + (likelihood - best[above - 1]) / (best[above] - best[above - 1])
