"""The statistics, against scipy's and against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from limbeck.errors import InputError
from limbeck.report.statistics import (
    Paired,
    direction,
    holm,
    mcnemar,
    mean_interval,
    paired,
    verdict,
)

A = [0.951, 0.944, 0.958, 0.949, 0.953]
B = [0.938, 0.941, 0.939, 0.930, 0.945]


def test_mean_interval_is_the_t_interval():
    mean, half = mean_interval(A)
    low, high = stats.t.interval(0.95, len(A) - 1, np.mean(A), stats.sem(A))
    assert mean == pytest.approx(np.mean(A))
    assert (mean - half, mean + half) == pytest.approx((low, high))


def test_one_value_has_no_interval():
    assert mean_interval([0.5]) == (0.5, None)
    with pytest.raises(InputError, match="at least one value"):
        mean_interval([])


def test_equal_values_have_an_interval_of_zero_width():
    assert mean_interval([0.9, 0.9, 0.9]) == (pytest.approx(0.9), 0.0)


def test_paired_is_the_paired_t_test():
    found, expected = paired(A, B), stats.ttest_rel(A, B)
    interval = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_identical_arms_do_not_differ():
    assert paired(A, A) == Paired(0.0, 0.0, 0.0, 1.0)


def test_a_constant_difference_is_taken_at_its_word():
    found = paired([0.3, 0.5, 0.7], [0.2, 0.4, 0.6])
    assert found.p == 0.0
    assert found.low == found.high == pytest.approx(0.1)


@pytest.mark.parametrize(("a", "b"), [([0.5], [0.4]), ([0.5, 0.6], [0.4])])
def test_paired_needs_two_common_seeds(a, b):
    with pytest.raises(InputError, match="two or more seeds"):
        paired(a, b)


def test_holm_steps_down_and_keeps_the_order():
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, then the running maximum.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_mcnemar_is_the_exact_binomial_test():
    a = np.array([True] * 40 + [True] * 9 + [False] * 2 + [False] * 5)
    b = np.array([True] * 40 + [False] * 9 + [True] * 2 + [False] * 5)
    assert mcnemar(a, b) == pytest.approx(stats.binomtest(2, 11).pvalue)
    assert mcnemar(b, a) == mcnemar(a, b)
    assert mcnemar(a, a) == 1.0


def test_mcnemar_pairs_predictions():
    with pytest.raises(InputError, match="3 and 2"):
        mcnemar(np.ones(3, bool), np.ones(2, bool))


def _row(arm, **versus):
    tests = {rival: {"difference": d, "p_holm": p} for rival, (d, p) in versus.items()}
    return {"arm": arm, "versus": tests}


def test_verdict_names_the_winners_and_the_hurt():
    arms = [
        _row("none"),
        _row("kd", none=(0.021, 0.004), kd_tuned=(-0.01, 0.4)),
        _row("rkd", none=(-0.03, 0.0001), kd_tuned=(-0.05, 0.001)),
        _row("kd_tuned", none=(0.03, 0.01)),
    ]
    assert verdict(arms) == (
        "kd (+2.10 points, Holm p = 0.004) and kd_tuned (+3.00 points, Holm p = 0.010) beat the "
        "no-teacher arm with confidence; distillation hurts: rkd (−3.00 points, Holm p < 0.001) is "
        "worse than the no-teacher arm; no arm beats tuned KD (kd_tuned) with confidence"
    )


def test_verdict_says_when_nobody_wins():
    arms = [_row("none"), _row("dkd", none=(0.02, 0.2), kd_tuned=(0.01, 0.05))]
    assert verdict(arms) == (
        "no arm beats the no-teacher arm with confidence; "
        "no arm beats tuned KD (kd_tuned) with confidence"
    )


def test_verdict_on_a_loss_counts_the_other_way():
    arms = [_row("none"), _row("kd", none=(-0.1, 0.01))]
    assert verdict(arms, "nll").startswith("kd (−0.100, Holm p = 0.010) beats the no-teacher arm")


def test_verdict_without_a_test_says_so():
    assert verdict([_row("none")]).startswith("nothing to compare")


def test_direction_needs_confidence():
    assert direction({"difference": 0.1, "p_holm": 0.05}, "accuracy") == 0
    assert direction({"difference": 0.1, "p_holm": 0.04}, "accuracy") == 1
    assert direction({"difference": 0.1, "p_holm": 0.04}, "ece") == -1
    assert direction(None, "accuracy") == 0
