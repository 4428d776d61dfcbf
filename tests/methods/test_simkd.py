from __future__ import annotations

import copy

import pytest
import torch
from feature_networks import Pair, make_engine, run

from limbeck.errors import InputError
from limbeck.methods.simkd import SimKD, SimKDSpec


def build(pair: Pair, **options: object) -> SimKD:
    torch.manual_seed(0)
    return SimKD(pair.student, pair.setting(), SimKDSpec(**options))


def test_trains_and_predicts_with_the_teachers_classifier(pair: Pair) -> None:
    method = build(pair)
    lines = run(make_engine(pair, method, epochs=20))
    assert lines[-1]["simkd"] < 0.8 * lines[0]["simkd"]
    assert torch.equal(method.student.linear.weight, pair.teacher.linear.weight)
    method.eval()
    right = method.student(pair.split.x).argmax(1) == pair.split.y
    assert right.float().mean() > 0.5  # it has seen no label


def test_what_is_delivered_is_one_plain_network(pair: Pair) -> None:
    method = build(pair)
    student = copy.deepcopy(method.student).eval()
    method.eval()
    x = pair.split.x[:4]
    assert torch.equal(student(x), method.student(x))
    assert [name for name, _ in method.named_modules() if name.startswith("student.layer2.1")]


def test_state_round_trip(pair: Pair) -> None:
    other = Pair(copy.deepcopy(pair.student), pair.teacher, pair.split)
    method = build(pair)
    run(make_engine(pair, method, epochs=1))
    again = SimKD(other.student, other.setting(), SimKDSpec())
    again.load_state_dict(method.state_dict())
    method.eval(), again.eval()
    assert torch.equal(method.student(pair.split.x), again.student(pair.split.x))


def test_taps_that_are_not_averaged_are_refused(pair: Pair) -> None:
    with pytest.raises(InputError, match="average"):
        build(pair, taps=[("layer1", "layer2")])


def test_vectors_are_refused(pair: Pair) -> None:
    with pytest.raises(InputError, match="projects maps"):
        build(pair, taps=[("pool", "pool")])
