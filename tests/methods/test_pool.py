"""Learning from a pool that a teacher labels with mistakes, through the whole machine."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from limbeck.data.base import ArraySplit, Data
from limbeck.engine.engine import Engine
from limbeck.engine.ranks import Ranks
from limbeck.errors import InputError
from limbeck.functional import calibrate_noise, estimate_weights, kd_loss
from limbeck.recipe.spec import Recipe
from limbeck.reproduce.noisy_pool import Planted
from limbeck.runs.api import distill
from limbeck.runs.execute import execute, make_engine
from limbeck.runs.job import Job, make_job

METHODS = ["slam", "weighted", "pseudo_label", "threshold", "forward", "taylor"]
CLASSES, WIDTH = 3, 6


@dataclass
class Problem:
    """Data whose classes a line can tell, and the truth about the pool."""

    data: Data
    teacher: Planted
    truth: Tensor
    pool_logits: Tensor


def make_problem(*, error: float = 0.3, val: int = 300, pool: int = 240) -> Problem:
    """A teacher that errs at small margins; `error` 0 makes it perfect."""
    generator = torch.Generator().manual_seed(0)
    count = 24 + val + 60 + pool
    x = torch.randn(count, WIDTH, generator=generator)
    y = x[:, :CLASSES].argmax(1)
    margin = torch.rand(count, generator=generator)
    wrong = torch.rand(count, generator=generator) < 2 * error * (1 - margin)
    guess = torch.where(wrong, (y + 1) % CLASSES, y)
    probs = ((1 - margin) / CLASSES)[:, None].repeat(1, CLASSES)
    probs[torch.arange(count), guess] += margin
    logits = probs.log()
    parts = [part.tolist() for part in torch.arange(count).split([24, val, 60, pool])]
    train, validation, test = (ArraySplit(x[p], y[p], torch.tensor(p)) for p in parts[:3])
    data = Data("planted", "table", train, validation, test, None, ("a", "b", "c"), (WIDTH,))
    data = replace(data, pool=ArraySplit(x[parts[3]], None, 1000 + torch.arange(pool)))
    return Problem(data, Planted(x, logits), y[parts[3]], logits[parts[3]])


def network(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(WIDTH, 16), nn.ReLU(), nn.Linear(16, CLASSES))


TRAINING = {"epochs": 3, "batch": 12, "device": "cpu", "pool_ratio": 5, "log_every": 1}


def make_job_of(problem: Problem, method: Any, **training: Any) -> Job:
    recipe = Recipe.model_validate({"method": method, "training": TRAINING | training})
    return make_job(recipe, student=network, teachers=[problem.teacher], data=problem.data)


def engine(problem: Problem, method: Any, **training: Any) -> Engine:
    job = make_job_of(problem, method, **training)
    return make_engine(job, Ranks(job.device))


def run(problem: Problem, method: Any, out: Path, **options: Any) -> Any:
    return distill(
        network,
        problem.teacher,
        problem.data,
        method=method,
        training=TRAINING | options.pop("training", {}),
        out=out,
        progress=False,
        **options,
    )


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["event"] == kind]


@pytest.fixture(scope="module")
def problem() -> Problem:
    return make_problem()


def train(machine: Engine) -> float:
    """All steps; the student's accuracy on the validation samples afterwards."""
    machine.prepare()
    while machine.done < machine.steps:
        if machine.done % machine.clock.steps_per_epoch == 0:
            machine.begin_epoch()
        machine.step()
    found = machine.survey("val")
    return (found["student.logits"].argmax(1) == found["y"]).double().mean().item()


LONG = {"epochs": 60, "optimizer": {"name": "adam", "lr": 0.02, "weight_decay": 0}}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("hard", [True, False])
def test_every_arm_learns_from_the_pool_alone(problem: Problem, name: str, hard: bool) -> None:
    if name == "taylor" and not hard:
        pytest.skip("its labels are hard")
    method = {"name": name, "hard": hard, "label_weight": 0.0}
    if name == "threshold":
        method["threshold"] = "auto"
    accuracy = train(engine(problem, method, **LONG))
    teacher = (problem.pool_logits.argmax(1) == problem.truth).double().mean()
    assert accuracy > teacher


def test_alpha_is_that_of_the_calibration(problem: Problem) -> None:
    machine = engine(problem, "slam")
    machine.prepare()
    term = machine.method.terms[0]
    val = problem.data.val
    teacher = problem.teacher(val.x).softmax(1)
    expected = calibrate_noise(teacher, val.y).alpha(problem.pool_logits.softmax(1))
    torch.testing.assert_close(term.alpha, expected)
    assert term.alpha.unique().numel() > 2


def test_soft_labels_have_one_alpha(problem: Problem) -> None:
    machine = engine(problem, {"name": "slam", "hard": False})
    machine.prepare()
    assert machine.method.terms[0].alpha.unique().numel() == 1


def test_the_mask_can_be_a_sample_s_own(problem: Problem) -> None:
    machine = engine(problem, {"name": "slam", "hard": False, "mask": "sample"})
    machine.prepare()
    assert set(machine.method.terms[0].k.tolist()) == {2, 3}
    assert {event["event"] for event in machine.events} == {"curve", "histogram"}


def test_weights_are_those_of_the_estimate(problem: Problem) -> None:
    machine = engine(problem, {"name": "weighted", "warmup": 0})
    machine.prepare()
    machine.begin_epoch()
    val, pool = problem.data.val, problem.data.pool
    student = machine.method.student.eval()
    with torch.no_grad():
        expected = estimate_weights(
            student(val.x).softmax(1),
            problem.teacher(val.x).softmax(1),
            val.y,
            student(pool.x).softmax(1),
            problem.pool_logits.softmax(1),
        )
    found = machine.method.terms[0].weights
    torch.testing.assert_close(found, expected.float())
    assert found.std() > 0.01


def test_weights_distrust_the_mistakes(problem: Problem) -> None:
    machine = engine(problem, "weighted", **LONG)
    train(machine)
    weights = machine.method.terms[0].weights
    wrong = problem.pool_logits.argmax(1) != problem.truth
    assert weights[wrong].mean() < 0.9 * weights[~wrong].mean()
    named = [event for event in machine.events if event["event"] == "samples"][-1]
    assert named["index"][0] == 1000 + int(weights.argmin())


@pytest.mark.parametrize(
    ("options", "epochs"),
    [({}, [1, 2, 3, 4]), ({"every": "once"}, [1]), ({"every": 2, "warmup": 0}, [0, 2, 4])],
)
def test_when_weights_are_estimated(
    problem: Problem, options: dict[str, Any], epochs: list[int]
) -> None:
    machine = engine(problem, {"name": "weighted", **options}, epochs=5)
    train(machine)
    steps = [event["step"] for event in machine.events if event["event"] == "histogram"]
    assert steps == [2 * epoch for epoch in epochs]


@pytest.mark.parametrize("name", ["slam", "weighted"])
def test_a_resumed_run_has_the_same_bits(problem: Problem, name: str, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(done: int, steps: int, words: str) -> None:
        if done == 5:
            raise Stop

    run(problem, name, tmp_path / "whole")
    with pytest.raises(Stop):
        execute(make_job_of(problem, name), tmp_path / "parts", report=stop)
    run(problem, name, tmp_path / "parts", resume=True)
    for file in ("metrics.jsonl", "student.safetensors", "checkpoints/last.safetensors"):
        assert (tmp_path / "parts" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_a_perfect_teacher_makes_all_plain() -> None:
    problem = make_problem(error=0.0)
    states = []
    for name in ("pseudo_label", "slam", "weighted"):
        machine = engine(problem, name, epochs=2)
        if name == "pseudo_label":
            train(machine)
        else:
            with pytest.warns(UserWarning, match="right on all 300 validation samples"):
                train(machine)
        states.append(machine.method.student.state_dict())
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value)
        assert torch.equal(states[2][key], value)


def test_a_shift_of_the_classes_is_told_and_mended() -> None:
    problem = make_problem(val=600, pool=600)
    rare = problem.truth.eq(0) & (torch.arange(600) % 8 > 0)
    rows = (~rare).nonzero().squeeze(1)
    problem.data = replace(problem.data, pool=problem.data.pool.select(rows))
    machine = engine(problem, "slam")
    with pytest.warns(UserWarning, match="not as frequent in the pool as in validation"):
        machine.prepare()
    ratios = machine.method.terms[0].evidence(machine).shift.ratios
    assert ratios.argmin() == 0
    assert ratios[0] < 0.5


def test_a_class_that_would_be_silenced_is_told() -> None:
    problem = make_problem(error=0.44, val=1200)
    said = problem.teacher.logits.argmax(1) == 2  # about half of it wrong, and without a margin
    problem.teacher.logits[said] = torch.tensor([0.0, 0.0, 0.05])
    machine = engine(problem, "slam")
    with pytest.warns(UserWarning, match=r"class 2 \(0\.5.*one α is used"):
        machine.prepare()
    assert machine.method.terms[0].alpha.unique().numel() == 1


def test_terms_add_up(problem: Problem) -> None:
    machine = engine(problem, [{"name": "slam"}, {"name": "kd", "weight": 0.5}])
    machine.prepare()
    machine.step()
    assert set(machine.flush()["terms"]) == {"slam", "kd"}


def test_another_loss_can_be_weighted(problem: Problem) -> None:
    method = {"name": "weighted", "loss": {"name": "kd", "temperature": 2.0}, "warmup": 0}
    machine = engine(problem, method)
    machine.prepare()
    term = machine.method.terms[0]
    term.weights[:] = torch.linspace(0, 2, len(term.weights))
    student, rows = torch.randn(5, CLASSES), torch.arange(5)
    pool = {"student.logits": student, "teacher.logits": problem.pool_logits[:5]}
    plain = kd_loss(student, pool["teacher.logits"], temperature=2.0, reduction="none")
    torch.testing.assert_close(term.values(pool, rows), term.weights[:5] * plain)


def refusals() -> dict[str, tuple[Any, Any, str]]:
    def without(data: Data, label: int) -> Data:
        return replace(data, val=data.val.select((data.val.y != label).nonzero().squeeze(1)))

    def leaking(data: Data) -> Data:
        return replace(data, train=data.val.select(torch.arange(24)))

    return {
        "no pool": (lambda d: replace(d, pool=None), "slam", "give some with --data.unlabeled"),
        "small validation": (
            lambda d: replace(d, val=d.val.select(torch.arange(64))),
            "slam",
            "the validation set has 64 labelled samples; 'slam' needs at least 100",
        ),
        "missing class": (lambda d: without(d, 2), "weighted", "class.* 2 never occur"),
        "leak": (leaking, "weighted", "24 of 300 validation samples are also training samples"),
        "small pool": (
            lambda d: replace(d, pool=d.pool.select(torch.arange(40))),
            "pseudo_label",
            "pool of 40 sample.* is smaller than the 60 that a batch takes",
        ),
        "no value a sample": (
            lambda d: d,
            {"name": "weighted", "loss": "dist"},
            "method.loss 'dist' has no value of its own for each sample",
        ),
        "plain below a half": (lambda d: d, {"name": "slam", "lower": 0.4}, "normalize: true"),
        "mask": (lambda d: d, {"name": "slam", "mask": 7}, "mask is 7, but there are 3 classes"),
    }


@pytest.mark.parametrize("case", refusals())
def test_what_is_refused(case: str, problem: Problem) -> None:
    change, method, words = refusals()[case]
    with pytest.raises(InputError, match=words):
        engine(replace(problem, data=change(problem.data)), method).prepare()


def test_weak_teachers_are_refused() -> None:
    problem = make_problem()
    guess = problem.teacher.logits.argmax(1)
    noise = torch.rand(len(guess), generator=torch.Generator().manual_seed(3))
    problem.teacher.logits[noise < 0.35] = problem.teacher.logits[noise < 0.35].roll(1, 1)
    with pytest.raises(InputError, match=r"not above 1/2, and plain .* --method.normalize true"):
        engine(problem, "slam").prepare()
    engine(problem, {"name": "slam", "normalize": True}).prepare()
    problem.teacher.logits[:] = torch.tensor([1.0, 0.0, 0.0])
    with pytest.raises(InputError, match="no more often than their most frequent class"):
        engine(problem, {"name": "slam", "normalize": True}).prepare()


def test_a_few_shared_samples_are_left_out() -> None:
    problem = make_problem(val=310)
    train = problem.data.train
    mixed = ArraySplit(
        torch.cat([train.x[:22], problem.data.val.x[:2]]),
        torch.cat([train.y[:22], problem.data.val.y[:2]]),
        train.ids,
    )
    machine = engine(replace(problem, data=replace(problem.data, train=mixed)), "slam")
    with pytest.warns(UserWarning, match=r"2 validation sample.* are left out"):
        machine.prepare()
    assert machine.method.terms[0].evidence(machine).rows.tolist()[0] == 2


def test_a_threshold_that_loses_a_class_is_told(problem: Problem) -> None:
    with pytest.warns(UserWarning, match="fewer than 10% of the samples"):
        engine(problem, {"name": "threshold", "threshold": 0.999}).prepare()


def test_a_threshold_by_precision(problem: Problem) -> None:
    machine = engine(problem, {"name": "threshold", "threshold": "auto", "precision": 0.9})
    machine.prepare()
    kept = machine.method.terms[0].kept
    right = problem.pool_logits.argmax(1) == problem.truth
    assert kept.mean() == pytest.approx(1)
    assert right[kept > 0].double().mean() > right.double().mean() + 0.05


def test_a_calibrated_teacher_has_its_temperature(problem: Problem) -> None:
    sharp = Planted(torch.zeros(1, WIDTH), torch.zeros(1, CLASSES))
    sharp.hashes, sharp.logits = problem.teacher.hashes, 4 * problem.teacher.logits
    found = []
    for teacher in (problem.teacher, sharp):
        machine = engine(
            replace(problem, teacher=teacher),
            {"name": "pseudo_label", "hard": False, "calibrate": True},
        )
        machine.prepare()
        found.append(machine.method.terms[0].temperature.item())
    assert found[1] == pytest.approx(4 * found[0], rel=1e-3)


def test_forward_knows_who_is_taken_for_whom(problem: Problem) -> None:
    machine = engine(problem, "forward")
    machine.prepare()
    confusion = machine.method.terms[0].confusion
    torch.testing.assert_close(confusion.sum(1), torch.ones(3))
    assert (confusion.diagonal() > 0.6).all()
    for y in range(3):
        assert confusion[y, (y + 1) % 3] > 0.15 > 0.02 > confusion[y, (y + 2) % 3]
