"""Several teachers: adaptive weights, the agreement gate, and the rules beside them."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from feature_networks import CLASSES, Pair, make_engine, run
from torch import Tensor

import limbeck
from limbeck.data.base import Record
from limbeck.engine.engine import Engine
from limbeck.errors import InputError, RunError
from limbeck.functional import ensemble_losses, kd_loss
from limbeck.methods.build import build_method, parse_method


class Says:
    """A teacher that gives stored logits, or any function of the labels."""

    live = True
    taps = ()

    def __init__(self, name: str, logits: Tensor) -> None:
        self.name, self.logits = name, logits

    def __call__(self, batch: Record) -> Record:
        return {"logits": self.logits[batch["index"]]}

    def modules(self) -> list[torch.nn.Module]:
        return []

    def tap(self, paths: object) -> None:
        assert not paths


def good(pair: Pair, seed: int) -> Tensor:
    noise = torch.randn(len(pair.split), CLASSES, generator=torch.Generator().manual_seed(seed))
    return 8 * torch.nn.functional.one_hot(pair.split.y, CLASSES) + noise


def permuted(pair: Pair) -> Tensor:
    return good(pair, 9).roll(3, 1)


def engine(pair: Pair, logits: list[Tensor], *, epochs: int = 6, **options: object) -> Engine:
    """The real engine on the pair's data, with teachers that say these logits."""
    spec = parse_method({"name": "adaptive_ensemble", **options})
    method = build_method(spec, pair.student, pair.setting(teachers=len(logits)))
    index = {int(i): row for row, i in enumerate(pair.split.ids)}
    table = [torch.zeros(max(index) + 1, CLASSES).index_copy(0, pair.split.ids, z) for z in logits]
    teachers = [Says(f"t{place}", z) for place, z in enumerate(table)]
    return make_engine(pair, method, teachers, epochs=epochs)


def figures(engine: Engine, steps: int = 8) -> dict[str, list[float]]:
    engine.method.train()
    for _ in range(steps):
        engine.step()
    return engine.flush()["figures"]


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno == logging.WARNING]


def test_trains_and_logs_its_weights(pair: Pair) -> None:
    built = engine(pair, [good(pair, seed) for seed in range(3)])
    lines = run(built)
    assert lines[-1]["ensemble"] < 0.9 * lines[0]["ensemble"]
    found = figures(engine(pair, [good(pair, seed) for seed in range(3)]))
    assert set(found) == {"weights", "norms", "cosines", "capped"}
    assert sum(found["weights"]) == pytest.approx(1, abs=1e-5)
    assert max(found["weights"]) <= 0.6 + 1e-6
    assert torch.tensor(found["cosines"]).diagonal().tolist() == pytest.approx([1, 1, 1])
    assert 0 <= found["capped"] <= 1


def test_the_least_tolerance_is_the_plain_mean(pair: Pair) -> None:
    logits = [good(pair, seed) for seed in range(4)]
    found = figures(engine(pair, logits, tolerance=0.25))
    assert found["weights"] == pytest.approx([0.25] * 4)


def test_a_permuted_teacher_is_named_and_not_heard(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    logits = [*(good(pair, seed) for seed in range(3)), permuted(pair)]
    found = figures(engine(pair, logits))
    assert found["weights"][3] == 0
    (message,) = warnings_of(caplog)
    assert message.startswith("teacher 3 (t3) is not heard from step 1 on")


def test_without_the_gate_it_gets_more_than_its_share(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    logits = [*(good(pair, seed) for seed in range(3)), permuted(pair)]
    found = figures(engine(pair, logits, gate=False, label_weight=0.0, tolerance=0.6))
    assert found["weights"][3] > 0.3
    assert not warnings_of(caplog)


def test_nobody_is_left_out_among_good_teachers(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    built = engine(pair, [good(pair, seed) for seed in range(4)])
    run(built)
    assert not warnings_of(caplog)


def test_equal_camps_are_said_and_heard(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    logits = [good(pair, 0), good(pair, 1), permuted(pair), permuted(pair)]
    found = figures(engine(pair, logits))
    assert min(found["weights"]) > 0
    (message,) = warnings_of(caplog)
    assert "0 (t0), 1 (t1) and 2 (t2), 3 (t3) oppose each other" in message


@pytest.mark.parametrize("scope", ["batch", "batch_mean", "sample"])
def test_equal_teachers_weigh_the_same(pair: Pair, scope: str) -> None:
    found = figures(engine(pair, [good(pair, 0)] * 3, scope=scope))
    assert found["weights"] == pytest.approx([1 / 3] * 3, abs=1e-4)


def test_a_teacher_that_is_not_finite_is_named(pair: Pair) -> None:
    logits = [good(pair, 0), good(pair, 1), good(pair, 2) * torch.nan]
    with pytest.raises(RunError, match=r"teacher 2 \(t2\) is not finite at step 1"):
        figures(engine(pair, logits))


def test_the_gates_memory_is_checkpointed(pair: Pair) -> None:
    built = engine(pair, [*(good(pair, seed) for seed in range(3)), permuted(pair)])
    figures(built)
    state = built.method.state_dict()
    assert state["gate.cosines"][0, 3] < 0


def test_tolerances(pair: Pair) -> None:
    def tolerance(**options: object) -> float:
        return engine(pair, [good(pair, 0)] * 3, **options).method.tolerance

    assert tolerance() == 0.6
    assert tolerance(label_weight=0.0) == pytest.approx(0.4)
    with pytest.raises(InputError, match=r"tolerance 0\.2 with 3 teachers leaves no solution"):
        tolerance(tolerance=0.2)
    with pytest.warns(UserWarning, match="counts as 1"):
        assert tolerance(tolerance=3.0) == 1.0


@pytest.mark.parametrize("name", ["adaptive_ensemble", "ensemble"])
def test_one_teacher_is_refused(pair: Pair, name: str) -> None:
    with pytest.raises(InputError, match=r"at least two teachers, there are 1.*use method kd"):
        build_method(parse_method(name), pair.student, pair.setting())


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two teachers of unlike widths, as folders."""
    folder = tmp_path_factory.mktemp("teachers")
    for place, widths in enumerate(("6,8", "8,12")):
        limbeck.train(
            f"limbeck:convnet?widths={widths}",
            "digits",
            training={"epochs": 2, "device": "cpu"},
            seed=place,
            out=folder / str(place),
            progress=False,
        )
    return [str(folder / str(place)) for place in range(2)]


def distill(teachers: list[object], out: Path, **method: object) -> list[dict[str, object]]:
    result = limbeck.distill(
        "limbeck:convnet?widths=4,6",
        teachers,
        "digits",
        method=method,
        training={"epochs": 2, "log_every": 10, "device": "cpu"},
        out=out,
        progress=False,
    )
    lines = map(json.loads, (result.run / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["event"] == "train"]


def test_hints_reach_teachers_of_other_widths_from_the_second_epoch(
    runs: list[str], tmp_path: Path
) -> None:
    specs = [limbeck.recipe.TeacherSpec(model=model, taps=["layer2"]) for model in runs]
    lines = distill(specs, tmp_path, name="adaptive_ensemble", space="features")
    assert "hints" not in lines[0]["terms"]
    assert lines[-1]["terms"]["hints"] > 0
    assert sum(lines[-1]["figures"]["hint_weights"]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("combine", ["mean", "logits", "confidence", "agreement", "best", "random"])
def test_rules_train(pair: Pair, combine: str) -> None:
    logits = [good(pair, seed) for seed in range(3)]
    lines = run(engine(pair, logits, name="ensemble", combine=combine, drop=0.3))
    assert lines[-1]["ensemble"] < 0.9 * lines[0]["ensemble"]


def first_step(pair: Pair, logits: list[Tensor], **options: object) -> float:
    """The term of the first step, and what it stands for computed beside it."""
    built = engine(pair, logits, name="ensemble", weight=1.0, **options)
    built.method.train()
    built.step()
    return built.flush()["terms"]["ensemble"]


def batch_of(pair: Pair, logits: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Student's and teachers' logits of the first step, and its labels."""
    built = engine(pair, logits, name="ensemble")
    built.method.train()
    batch = built.feed.batch(0)
    batch |= built.teachers(batch)
    with torch.no_grad():
        student = built.forward(batch["x"])["logits"]
    return student, torch.stack([batch[f"teacher.{m}.logits"] for m in range(3)]), batch["y"]


def test_rules_are_what_they_say(pair: Pair) -> None:
    import copy

    logits = [good(pair, 0), 3 * torch.randn(len(pair.split), CLASSES), permuted(pair)]
    student, teachers, y = batch_of(
        Pair(copy.deepcopy(pair.student), pair.teacher, pair.split), logits
    )
    losses = ensemble_losses(student, teachers, per_sample=True)
    chances = teachers.softmax(-1)
    truth = chances.gather(-1, y.expand(3, -1)[..., None])[..., 0]
    confidence = chances.amax(-1) / chances.amax(-1).sum(0)
    expected = {
        "mean": losses.mean(),
        "logits": kd_loss(student, teachers.mean(0)),
        "confidence": (confidence * losses).sum(0).mean(),
        "best": losses.gather(0, truth.argmax(0, keepdim=True)).mean(),
    }
    for combine, value in expected.items():
        fresh = Pair(copy.deepcopy(pair.student), pair.teacher, pair.split)
        assert first_step(fresh, logits, combine=combine) == pytest.approx(float(value), rel=1e-5)
    fresh = Pair(copy.deepcopy(pair.student), pair.teacher, pair.split)
    found = first_step(fresh, logits, combine="weights", weights=[3.0, 1.0, 0.0])
    assert found == pytest.approx(
        float(0.75 * losses[0].mean() + 0.25 * losses[1].mean()), rel=1e-5
    )


def test_weights_are_checked(pair: Pair) -> None:
    logits = [good(pair, 0)] * 3
    for options in ({"combine": "weights", "weights": [1.0]}, {"weights": [1.0, 1.0, 1.0]}):
        with pytest.raises(InputError, match="give one for each, with combine: weights"):
            engine(pair, logits, name="ensemble", **options)
    with pytest.raises(InputError, match="all 0"):
        engine(pair, logits, name="ensemble", combine="weights", weights=[0.0, 0.0, 0.0])


def half(folder: Path, classes: range) -> str:
    """A teacher that knows only some of the digits, as the folder of its run."""
    data = limbeck.load_data("digits")
    x, y = data.train.x, data.train.y
    rows = torch.isin(y, torch.tensor(list(classes)))
    limbeck.train(
        "limbeck:convnet?widths=8,12",
        (x[rows], y[rows] - classes.start),
        training={"epochs": 8, "device": "cpu"},
        out=folder,
        progress=False,
    )
    return str(folder)


def test_teachers_that_know_some_classes_teach_together(tmp_path: Path) -> None:
    parts = [range(5), range(5, 10)]
    specs = [
        limbeck.recipe.TeacherSpec(
            model=half(tmp_path / str(part.start), part), classes=[str(c) for c in part]
        )
        for part in parts
    ]
    options = {"training": {"epochs": 4, "device": "cpu"}, "progress": False}
    method = {"name": "adaptive_ensemble", "temperature": 2.0}
    result = limbeck.distill(
        "limbeck:convnet?widths=6,8", specs, "digits", method=method, out=tmp_path / "s", **options
    )
    assert result.metrics["test.accuracy"] > 0.6
    with pytest.raises(InputError, match=r"no output for class\(es\) 5, 6, .*adaptive_ensemble"):
        limbeck.distill(
            "limbeck:convnet?widths=6,8", specs, "digits", out=tmp_path / "kd", **options
        )
