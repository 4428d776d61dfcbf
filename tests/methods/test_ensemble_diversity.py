"""A student of several members: pairing, moved inputs, schedules, and what is refused."""

from __future__ import annotations

import copy
import json
import logging

import pytest
import torch
from feature_networks import CLASSES, Pair, fit, make_engine, run
from torch import nn

import limbeck.functional as F
from limbeck.engine.engine import Engine
from limbeck.errors import InputError
from limbeck.methods.base import Clock
from limbeck.methods.build import build_method, parse_method
from limbeck.methods.ensemble_diversity import EnsembleDiversity, _now
from limbeck.models.small import convnet
from limbeck.students import batch_ensemble
from limbeck.teachers.live import LiveTeacher

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def others(trained_pair: Pair) -> list[nn.Module]:
    """A second teacher beside the pair's own."""
    torch.manual_seed(5)
    second = convnet(classes=CLASSES, in_channels=1, widths=(8, 12))
    fit(second, trained_pair.split)
    return [trained_pair.teacher, second]


def build(pair: Pair, student: nn.Module | None = None, **options: object) -> EnsembleDiversity:
    facts = {key: options.pop(key) for key in ("teachers", "live") if key in options}
    method = build_method(
        parse_method({"name": "ensemble_diversity", **options}),
        pair.student if student is None else student,
        pair.setting(**{"teachers": 2, **facts}),
    )
    assert isinstance(method, EnsembleDiversity)
    return method


def engine(pair: Pair, teachers: list[nn.Module], *, epochs: int = 4, **options: object) -> Engine:
    live = [LiveTeacher(copy.deepcopy(model), name=f"t{m}") for m, model in enumerate(teachers)]
    return make_engine(pair, build(pair, **options), live, epochs=epochs, lr=0.05)


@pytest.mark.parametrize("perturb", ["conf_ods", "ods", "gaussian", "none"])
def test_trains(pair: Pair, others: list[nn.Module], perturb: str) -> None:
    built = engine(pair, others, perturb=perturb, step=8.0)
    lines = run(built)
    assert set(lines[0]) == {"members", "labels"}
    assert lines[-1]["members"] < lines[0]["members"]
    assert built.method.online == (perturb != "none")


def test_moved_inputs_are_where_the_teachers_disagree(pair: Pair, others: list[nn.Module]) -> None:
    built = engine(pair, others, step=64.0)
    built.method.prepare(built)
    (event,) = built.events
    assert event["event"] == "disagreement"
    assert event["moved"] > 1.3 * event["clean"]
    x = pair.split.x[:16]
    moved, stuck = built.method._moved(x, built, 0)
    assert (moved.min() >= 0, moved.max() <= 1) == (True, True)
    root = (moved - x).square().mean((1, 2, 3)).sqrt() * 255
    assert (root <= 64.001).all()
    assert stuck == 0
    again, _ = built.method._moved(x, built, 0)
    assert torch.equal(again, moved)


def test_each_member_follows_its_own_teacher(pair: Pair, others: list[nn.Module]) -> None:
    torch.manual_seed(0)
    wide = convnet(classes=CLASSES, in_channels=1, widths=(16, 24))
    built = engine(
        Pair(wide, pair.teacher, pair.split), others, epochs=30, perturb="none", share=1.0
    )
    built.method.train()
    while built.done < built.steps:
        built.step()
    student = built.method.student.eval()
    with torch.no_grad():
        ours = student.members(pair.split.x).softmax(-1)
        theirs = torch.stack([model(pair.split.x) for model in others]).softmax(-1)
    assert F.member_kl(ours, theirs) < F.member_kl(ours, theirs.flip(0))


def test_pairs(pair: Pair, others: list[nn.Module]) -> None:
    built = engine(pair, others, members=4)
    assert built.method._pairs(built).tolist() == [0, 1, 0, 1]
    assert "each teacher has 2 members that follow it" in built.method.describe()
    random = engine(pair, others, members=3, pairing="random")
    drawn = random.method._pairs(random).tolist()
    assert set(drawn) == {0, 1}
    assert len(drawn) == 3


def test_schedules() -> None:
    assert _now(2.0, None, Clock(5, 10, 5)) == 2.0
    assert _now(2.0, 4.0, Clock(5, 10, 5)) == 3.0


def test_members_that_start_as_one_are_pulled_together(pair: Pair, others: list[nn.Module]) -> None:
    built = engine(pair, others, perturb="none", merge=True, epochs=1)
    lines = run(built)
    assert lines[-1]["pull"] > 0
    assert built.method.student.merged()(pair.split.x[:2]).shape == (2, CLASSES)


def test_sure_teachers_are_said(
    pair: Pair, others: list[nn.Module], caplog: pytest.LogCaptureFixture
) -> None:
    sure = copy.deepcopy(others[1])
    with torch.no_grad():
        sure.linear.weight *= 1e4
    built = engine(pair, [others[0], sure])
    built.method.prepare(built)
    (message,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert message.startswith("teacher 1 (t1) gives no direction for ")
    json.dumps(built.events)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"teachers": 1}, r"at least two teachers, there are 1.*use method kd"),
        ({"live": False}, r"conf_ods needs the teachers themselves.*perturb: none"),
        ({"members": 3}, "3 members cannot share 2 teachers evenly"),
    ],
)
def test_bad_input(pair: Pair, options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        build(pair, **options)


def test_stored_teachers_serve_where_nothing_moves(pair: Pair) -> None:
    assert build(pair, live=False, perturb="none").online is False


def test_other_inputs_are_refused(pair: Pair) -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES))
    table = Pair(
        flat, flat, type(pair.split)(pair.split.x.flatten(1) * 3, pair.split.y, pair.split.ids)
    )
    with pytest.raises(
        InputError, match=r"samples of shape \(64,\) are none: set .*step_unit: std"
    ):
        build(table)
    assert build(table, step_unit="std").spec.step_unit == "std"


def test_a_student_with_members_keeps_them(pair: Pair) -> None:
    student = batch_ensemble(pair.student, members=4)
    assert build(pair, student).student is student
    with pytest.raises(InputError, match=r"student has 4 members, and method\.members asks for 2"):
        build(pair, student, members=2)
