"""Evidence: intervals over seeds, paired tests, Holm's correction, and the verdict in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limbeck.errors import InputError
from limbeck.report.words import gap, p_phrase
from limbeck.tasks.classification import LOWER_IS_BETTER

CONFIDENCE = 0.05
"""Largest Holm-corrected p that counts as "with confidence"."""

_RIVALS = {"none": "the no-teacher arm", "kd_tuned": "tuned KD (kd_tuned)"}


@dataclass(frozen=True)
class Paired:
    """Paired t test over seeds: mean difference a - b, its 95 % interval, two-sided p."""

    difference: float
    low: float
    high: float
    p: float


def mean_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean over seeds and the half-width of its 95 % t interval.

    Args:
        values: one number a seed.

    Returns:
        (mean, half-width); the half-width of a single value is None, for one seed says
        nothing about the spread.

    Raises:
        InputError: no value at all.
    """
    if not len(values):
        raise InputError("an interval over seeds needs at least one value, found none")
    mean = math.fsum(values) / len(values)
    return mean, None if len(values) < 2 else _half_width(values)


def paired(a: Sequence[float], b: Sequence[float]) -> Paired:
    """Paired t test of two arms over the same seeds.

    Differences without spread are taken at their word: all zero gives p = 1, all equal
    otherwise p = 0, with an interval of zero width.

    Args:
        a: one number a seed.
        b: the other arm, in the same order of seeds.

    Raises:
        InputError: fewer than two seeds, or a different number in each arm.
    """
    if len(a) != len(b) or len(a) < 2:
        raise InputError(
            f"a paired test needs two or more seeds, the same for both arms; found {len(a)} and "
            f"{len(b)}"
        )
    differences = [x - y for x, y in zip(a, b, strict=True)]
    difference = math.fsum(differences) / len(differences)
    half = _half_width(differences)
    return Paired(difference, difference - half, difference + half, _t_test(differences))


def _standard_error(values: Sequence[float]) -> float:
    """Of the mean; zero where the spread is no more than the rounding of the numbers."""
    spread = float(np.std(np.asarray(values, dtype=float), ddof=1))
    rounding = 1e-12 * max(abs(value) for value in values)
    return 0.0 if spread <= max(rounding, 1e-15) else spread / math.sqrt(len(values))


def _half_width(values: Sequence[float]) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(len(values) - 1, 0.975)) * _standard_error(values)


def _t_test(differences: Sequence[float]) -> float:
    """Two-sided p of the hypothesis that the mean difference is zero."""
    from scipy.special import stdtr

    error = _standard_error(differences)
    mean = math.fsum(differences) / len(differences)
    if error == 0.0:
        return 1.0 if abs(mean) <= 1e-15 else 0.0
    return float(2 * stdtr(len(differences) - 1, -abs(mean / error)))


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's step-down correction (Holm 1979), as adjusted p values in the given order."""
    adjusted = [0.0] * len(ps)
    largest = 0.0
    for rank, position in enumerate(sorted(range(len(ps)), key=lambda index: ps[index])):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[position]))
        adjusted[position] = largest
    return adjusted


def mcnemar(correct_a: NDArray[np.bool_], correct_b: NDArray[np.bool_]) -> float:
    """McNemar's exact test on pooled predictions.

    Args:
        correct_a: which predictions of one arm were right, bool of shape (N,).
        correct_b: the other arm on the same samples.

    Returns:
        Two-sided binomial p over the samples on which exactly one arm is right; 1 if none.

    Raises:
        InputError: the arms have a different number of predictions.
    """
    from scipy.special import bdtr

    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if a.shape != b.shape:
        raise InputError(f"McNemar's test pairs predictions, found {a.size} and {b.size} of them")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    if only_a + only_b == 0:
        return 1.0
    return min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def sign(metric: str) -> int:
    """1 where larger is better, -1 where smaller is."""
    return -1 if metric in LOWER_IS_BETTER else 1


def direction(versus: Mapping[str, Any] | None, metric: str) -> int:
    """1: better with confidence, -1: worse with confidence, 0: neither (or not tested)."""
    if versus is None or versus["p_holm"] >= CONFIDENCE:
        return 0
    return int(np.sign(versus["difference"])) * sign(metric)


def verdict(arms: Sequence[Mapping[str, Any]], metric: str = "accuracy") -> str:
    """What a comparison shows, in plain words.

    Args:
        arms: rows of the table, each with `arm` and `versus` (rival to paired test with
            `difference` and `p_holm`).
        metric: what the arms are compared by.

    Returns:
        One sentence of clauses: who beats the no-teacher arm, who is hurt by distillation,
        who beats tuned KD; or that nobody does, or that there was nothing to test.
    """
    clauses = [*_clauses(arms, "none", metric), *_clauses(arms, "kd_tuned", metric)]
    return "; ".join(clauses) or "nothing to compare: a test needs two arms with two seeds or more"


def _clauses(arms: Sequence[Mapping[str, Any]], rival: str, metric: str) -> list[str]:
    tested = [arm for arm in arms if rival in arm.get("versus", {})]
    if not tested:
        return []
    ways = {arm["arm"]: direction(arm["versus"][rival], metric) for arm in tested}
    name = _RIVALS[rival]
    better = [_gain(arm, rival, metric) for arm in tested if ways[arm["arm"]] > 0]
    worse = [_gain(arm, rival, metric) for arm in tested if ways[arm["arm"]] < 0]
    clauses = [f"no arm beats {name} with confidence"]
    if better:
        verb = "beats" if len(better) == 1 else "beat"
        clauses = [f"{_listed(better)} {verb} {name} with confidence"]
    if worse and rival == "none":
        verb = "is" if len(worse) == 1 else "are"
        clauses.append(f"distillation hurts: {_listed(worse)} {verb} worse than {name}")
    return clauses


def _gain(arm: Mapping[str, Any], rival: str, metric: str) -> str:
    test = arm["versus"][rival]
    return f"{arm['arm']} ({gap(test['difference'], metric)}, Holm {p_phrase(test['p_holm'])})"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
