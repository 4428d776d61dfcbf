"""Factor transfer: stage 1, stage 2, and the weight that any tap shares."""

from __future__ import annotations

import math

import pytest
import torch
from feature_networks import Pair, make_engine, run
from torch import Tensor, nn

from limbeck.errors import InputError
from limbeck.functional import factor_loss
from limbeck.methods.base import Clock
from limbeck.methods.factor import FactorTransfer, FactorTransferSpec
from limbeck.nn.factor import Paraphraser, Translator, factor_channels

SHORT = pytest.mark.filterwarnings("ignore:the paraphraser")
FIRST = [("layer1", "layer1")]


def build(pair: Pair, **options: object) -> FactorTransfer:
    torch.manual_seed(0)
    return FactorTransfer(pair.student, pair.setting(), FactorTransferSpec(**options))


def record(pair: Pair, method: FactorTransfer) -> dict[str, Tensor]:
    return pair.record(pair.rows(0), method.student_taps, method.teacher_taps)


@SHORT
def test_trains(pair: Pair) -> None:
    method = build(pair, prepare={"epochs": 4})
    teacher = [parameter.clone() for parameter in pair.teacher.parameters()]
    lines = run(make_engine(pair, method))
    assert lines[-1]["factor"] < 0.8 * lines[0]["factor"]
    assert lines[-1]["labels"] < lines[0]["labels"]
    assert all(torch.equal(a, b) for a, b in zip(teacher, pair.teacher.parameters(), strict=True))


@SHORT
def test_stage_one_learns_and_then_stands_still(pair: Pair) -> None:
    method = build(pair, taps=FIRST, prepare={"epochs": 30, "lr": 1e-2})
    engine = make_engine(pair, method, epochs=1)
    method.prepare(engine)
    assert float(method.rec_rel) < 0.85
    before = {key: value.clone() for key, value in method.paraphrasers.state_dict().items()}
    engine.step()
    after = method.paraphrasers.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert not any(p.requires_grad for p in method.paraphrasers.parameters())


def test_random_paraphraser_is_the_control(pair: Pair) -> None:
    method = build(pair, taps=FIRST, prepare={"epochs": 0})
    start = {key: value.clone() for key, value in method.paraphrasers.state_dict().items()}
    method.prepare(make_engine(pair, method, epochs=1))
    after = method.paraphrasers.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in start.items())
    assert float(method.rec_rel) > 1


def test_stage_one_is_a_function_of_the_seed(pair: Pair) -> None:
    states = []
    for _ in range(2):
        method = build(pair, prepare={"epochs": 3})
        with pytest.warns(UserWarning, match="loses"):
            method.prepare(make_engine(pair, method, epochs=1))
        states.append(method.state_dict())
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


@SHORT
def test_state_round_trip(pair: Pair) -> None:
    method = build(pair, prepare={"epochs": 2})
    method.prepare(make_engine(pair, method, epochs=1))
    state = {key: value.clone() for key, value in method.state_dict().items()}
    torch.manual_seed(1)
    again = FactorTransfer(pair.student, pair.setting(), method.spec)
    again.load_state_dict(state)
    batch = record(pair, method)
    with torch.no_grad():
        ours, theirs = (m.losses(batch, Clock(0, 1, 1))["factor"] for m in (method, again))
    assert torch.equal(ours, theirs)
    assert torch.equal(again.rec_rel, method.rec_rel)


def test_helpers_are_no_part_of_the_student(pair: Pair) -> None:
    names = set(pair.student.state_dict())
    method = build(pair)
    assert set(method.student.state_dict()) == names
    assert len(list(method.translators.parameters())) == 6


def test_scale_free_weight_is_the_official_one_times_the_root_of_the_size(pair: Pair) -> None:
    free = build(pair, weight=11.0)
    batch = record(pair, free)
    size = 12 * 2 * 2  # half of the teacher's 24 channels on the common grid
    official = build(pair, beta=11 * math.sqrt(size))
    with torch.no_grad():
        ours, theirs = (m.losses(batch, Clock(0, 1, 1))["factor"] for m in (free, official))
    assert float(ours) == pytest.approx(float(theirs))


def test_both_norms_and_the_kd_arm(pair: Pair) -> None:
    method = build(pair, p=2, kd_weight=0.9, label_weight=0.0)
    terms = method.losses(record(pair, method), Clock(0, 1, 1))
    assert set(terms) == {"factor", "kd"}
    assert 0 < terms["factor"].item() <= 2 * method.spec.weight


def test_gradient_reaches_student_and_translator_only(pair: Pair) -> None:
    method = build(pair)
    method.losses(record(pair, method), Clock(0, 1, 1))["factor"].backward()
    assert all(p.grad is not None for p in method.translators.parameters())
    assert all(p.grad is None for p in method.paraphrasers.parameters())
    assert any(p.grad is not None for p in pair.student.parameters())


@pytest.mark.parametrize(
    "taps",
    [
        [("layer1", "layer2")],
        [("pool", "pool")],
        [("layer2", "pool")],
        [("pool", "layer2")],
        [("layer1", "layer1"), ("layer2", "layer2")],
    ],
)
def test_any_tap_meets_any_tap(pair: Pair, taps: list[tuple[str, str]]) -> None:
    method = build(pair, taps=taps)
    loss = method.losses(record(pair, method), Clock(0, 1, 1))["factor"]
    assert bool(loss.isfinite())


class Tokens(nn.Module):
    """Images as tokens with a class token before them, for a classifier of their mean."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, width, 2, 2)
        self.block = nn.Linear(width, width)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1)
        return self.head(self.block(tokens).mean(1))


def test_tokens_meet_maps_and_tokens(pair: Pair) -> None:
    for student, teacher, taps in (
        (pair.student, Tokens(6), [("layer1", "block")]),
        (Tokens(6), pair.teacher, [("block", "layer1")]),
        (Tokens(6), Tokens(9), [("block", "block")]),
    ):
        mixed = Pair(student, teacher, pair.split)
        method = build(mixed, taps=taps)
        assert bool(method.losses(record(mixed, method), Clock(0, 1, 1))["factor"].isfinite())


def test_signed_taps_lose_the_last_activation(pair: Pair) -> None:
    assert len(build(pair, taps=[("layer2", "layer2.0")]).paraphrasers[0].decoder) == 5
    assert len(build(pair, taps=[("layer2", "layer2")]).paraphrasers[0].decoder) == 6


def test_parameter_counts_of_the_paper() -> None:
    assert sum(p.numel() for p in Paraphraser(64, 0.5).parameters()) == 129_312
    assert sum(p.numel() for p in Translator(16, 32).parameters()) == 9 * (256 + 512 + 1024) + 80


@pytest.mark.parametrize(("channels", "rate", "least"), [(32, 0.01, 0.02), (10, 0.04, 0.06)])
def test_a_rate_that_leaves_nothing_names_one_that_does(
    channels: int, rate: float, least: float
) -> None:
    with pytest.raises(InputError, match=f"use at least {least:g}"):
        factor_channels(channels, rate)
    assert factor_channels(channels, least) == 1


def test_rate_and_norm_are_checked() -> None:
    with pytest.raises(InputError, match="above 0"):
        factor_channels(32, 0.0)
    with pytest.raises(InputError, match="1 or 2"):
        factor_loss(torch.ones(2, 3), torch.ones(2, 3), p=3)


def test_several_teachers_are_refused(pair: Pair) -> None:
    with pytest.raises(InputError, match="exactly one"):
        FactorTransfer(pair.student, pair.setting(teachers=2), FactorTransferSpec())
