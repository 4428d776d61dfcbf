"""Calibration error, log-likelihood and Brier score on cases a person can follow."""

from __future__ import annotations

import pytest
import torch

import limbeck.functional as F
from limbeck.errors import InputError

TARGET = torch.tensor([0, 0, 1, 0])
PROBABILITIES = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])


def test_calibration_error_by_hand():
    """Confidence 0.9 twice, both right; 0.6 twice, both wrong: ½ · 0.1 + ½ · 0.6."""
    assert F.ece(PROBABILITIES, TARGET).item() == pytest.approx(0.35)


def test_a_bin_holds_its_upper_edge():
    probabilities = torch.tensor([[0.5, 0.5], [0.75, 0.25]])
    target = torch.tensor([0, 1])
    assert F.ece(probabilities, target, bins=2).item() == pytest.approx((0.5 + 0.75) / 2)
    assert F.ece(probabilities, target, bins=2, closed="left").item() == pytest.approx(0.125)


def test_sure_and_wrong():
    probabilities, target = torch.tensor([[1.0, 0.0]]), torch.tensor([1])
    assert F.ece(probabilities, target).item() == 1.0
    assert F.brier(probabilities, target).item() == 2.0
    assert F.nll(probabilities, target).item() == pytest.approx(15.94, abs=0.01)
    assert F.nll(probabilities, target, floor=0.5).item() == pytest.approx(0.6931, abs=1e-4)


def test_log_likelihood_is_torchs_on_logits():
    logits = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    target = torch.arange(20) % 4
    expected = torch.nn.functional.cross_entropy(logits, target)
    torch.testing.assert_close(F.nll(logits.softmax(1), target), expected)


def test_members_of_a_batch_ensemble_are_scaled_layers():
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(6, 2, 4, generator=generator), torch.randn(5, 4, generator=generator)
    alpha, gamma = torch.randn(3, 4, generator=generator), torch.randn(3, 5, generator=generator)
    bias = torch.randn(3, 5, generator=generator)
    output = F.batch_ensemble_linear(x, weight, alpha, gamma, bias)
    for member in range(3):
        dense = gamma[member, :, None] * weight * alpha[member]
        rows = slice(2 * member, 2 * member + 2)
        expected = torch.nn.functional.linear(x[rows], dense, bias[member])
        torch.testing.assert_close(output[rows], expected)
    with pytest.raises(InputError, match="as many samples"):
        F.batch_ensemble_linear(x[:5], weight, alpha, gamma)


@pytest.mark.parametrize("measure", [F.ece, F.nll, F.brier])
def test_bad_input(measure):
    with pytest.raises(InputError, match="targets have shape"):
        measure(PROBABILITIES, TARGET[:2])
