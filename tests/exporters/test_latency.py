"""Latency: real times, in milliseconds, without leaving a trace in the model."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from limbeck.exporters.latency import latency, latency_of


def test_it_measures_milliseconds():
    def answer(x):
        time.sleep(0.004 * len(x))
        return x

    found = latency_of(answer, torch.zeros(1, 3), (1, 4))
    assert list(found) == ["1", "4"]
    assert 4 <= found["1"] < 100
    assert 16 <= found["4"] < 400


def test_the_model_keeps_its_mode_and_its_statistics():
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = latency(model, (4,), batches=(1, 8))
    assert model.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(value > 0 for value in found.values())


def test_token_ids_stay_inside_any_vocabulary():
    found = latency(nn.Embedding(3, 2), (5,), batches=(2,), dtype=torch.int64)
    assert found["2"] > 0


def test_global_random_state_is_left_alone():
    model = nn.Linear(2, 2)
    before = torch.get_rng_state()
    latency(model, (2,), batches=(1,))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_measurement_is_short():
    start = time.perf_counter()
    latency(nn.Linear(2, 2), (2,))
    assert time.perf_counter() - start == pytest.approx(0.0, abs=2.0)
