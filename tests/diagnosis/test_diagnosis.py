"""Pre-flight checks find what is wrong, and the verdict says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from limbeck import diagnose, load_data
from limbeck.data.base import Data
from limbeck.diagnosis.findings import better_order, capacity, confidence, cost, teacher_quality
from limbeck.diagnosis.models import leaks, preprocessing, statistics
from limbeck.diagnosis.size import effective_size, size_report
from limbeck.diagnosis.verdict import judge
from limbeck.errors import InputError
from limbeck.models.small import convnet, mlp
from limbeck.nn.input import InputAdapter
from limbeck.recipe.folder import read_json
from limbeck.runs.shrink import Plan, narrowed, narrower_name, shrink
from limbeck.theory.difficulty import Cell, Difficulty


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def task(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(count, 6, generator=draws(seed))
    return x, (x[:, :3] + 0.5 * x[:, 3:]).argmax(1)


def make_data() -> Data:
    (x, y), (x_val, y_val), (x_test, y_test) = task(300, 0), task(200, 1), task(200, 2)
    return load_data(
        {
            "x_train": x.numpy(),
            "y_train": y.numpy(),
            "x_val": x_val.numpy(),
            "y_val": y_val.numpy(),
            "x_test": x_test.numpy(),
            "y_test": y_test.numpy(),
        }
    )


def make_teacher(order: tuple[int, ...] = (0, 1, 2)) -> nn.Module:
    """An exact linear teacher of the task, through hidden nodes, its outputs in any order."""
    model = mlp(classes=3, shape=(6,), widths=(12,))
    half = torch.cat([torch.eye(3), 0.5 * torch.eye(3)], 1)
    with torch.no_grad():
        model[1][0].weight.copy_(torch.cat([half, -half, 0.01 * half, -0.01 * half]))
        model[1][0].bias.zero_()
        weight = 2 * torch.cat([torch.eye(3), -torch.eye(3), torch.eye(3), -torch.eye(3)], 1)
        model[2].weight.copy_(weight[list(order)])
        model[2].bias.zero_()
    return model


def levels(findings: list) -> dict[str, str]:
    return {finding.name: finding.level for finding in findings}


def test_a_permuted_label_list_is_found_and_named() -> None:
    x, y = task(300, 0)
    model = make_teacher((2, 0, 1))
    logits = model(x).detach()
    assert better_order(logits, y) == [2, 0, 1]
    assert better_order(logits[:, [1, 2, 0]], y) is None
    found = teacher_quality(logits, y, ("cat", "dog", "eel"), logits)
    order = next(f for f in found if f.name == "order of the classes")
    assert "[eel, cat, dog]" in order.words
    assert order.value == pytest.approx(1.0)


def test_confidence_and_calibration() -> None:
    y = torch.randint(0, 3, (200,), generator=draws())
    hard = 50 * torch.nn.functional.one_hot(y, 3).float()
    assert levels(confidence(hard, y))["teacher's confidence"] == "warning"
    wrong = 3 * torch.nn.functional.one_hot((y + 1) % 3, 3).float()
    assert levels(confidence(wrong, y))["teacher's calibration"] == "note"


def image_data(mean: float) -> tuple[Data, torch.Tensor, torch.Tensor]:
    x = (torch.rand(200, 1, 8, 8, generator=draws()) * 255).byte()
    y = (x.float().mean((1, 2, 3)) > 127).long()
    return load_data((x.numpy(), y.numpy())), x, y


def test_another_normalization_is_named() -> None:
    class Bright(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mean = x.mean((1, 2, 3)) - 127 / 255
            return torch.stack([-mean, mean], 1)

    data, x, y = image_data(0.5)

    def score(logits: torch.Tensor) -> float:
        return float((logits.argmax(1) == y).double().mean())

    wrong = InputAdapter((0.1,), (0.2,))
    found = preprocessing(Bright(), wrong, data, x, score)
    assert found.level == "warning"
    assert "no normalization" in found.words
    assert preprocessing(Bright(), InputAdapter(), data, x, score).level == "good"


def test_running_statistics_that_were_never_updated_are_found() -> None:
    x = 30 + 5 * torch.randn(200, 1, 6, 6, generator=draws())
    y = (x.mean((1, 2, 3)) > 30).long()
    model = nn.Sequential(nn.BatchNorm2d(1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))
    with torch.no_grad():
        model[3].weight.copy_(torch.tensor([[-1.0], [1.0]]))
        model[3].bias.zero_()

    def score(logits: torch.Tensor) -> float:
        return float((logits.argmax(1) == y).double().mean())

    found = statistics(model.eval(), x, score)
    assert found is not None
    assert found.level == "warning"
    model[0].running_mean.fill_(30.0)
    assert statistics(model, x, score).level == "good"
    assert model[0].running_mean.item() == 30.0  # read-only
    assert statistics(nn.Linear(2, 2), x[:, 0, 0, :2], lambda logits: 0.0) is None


def test_duplicates_between_splits_are_counted() -> None:
    (x, y), (x_val, y_val) = task(100, 0), task(50, 1)
    x_val[:10] = x[:10]
    arrays = {"x_train": x, "y_train": y, "x_val": x_val, "y_val": y_val, "x_test": x_val}
    arrays["y_test"] = y_val
    found = leaks(load_data({key: value.numpy() for key, value in arrays.items()}))
    assert [finding.level for finding in found] == ["warning", "warning"]
    assert found[0].value == pytest.approx(0.2)


def test_capacity_and_cost() -> None:
    assert capacity(100, 100_000).level == "note"
    assert capacity(100, 50).level == "note"
    assert capacity(100, 500).level == "good"
    assert capacity(100, None).value is None
    time, store = cost(1e-3, 50_000, 10, 30)
    assert time.value == pytest.approx(50)
    assert store.value == 1_000_000


def grid(best: float, hard: float) -> Difficulty:
    cells = [Cell(r, 2.0, 0.1, e, 1.0, 0.5) for r, e in ((1.0, best), (0.01, hard))]
    return Difficulty(cells, min(cells, key=lambda c: c.error), 0.1, 1.0, 10.0)


def test_verdicts() -> None:
    helps, words, method = judge([], grid(0.05, 0.2), 1000)
    assert helps is True
    assert method == {"name": "kd", "temperature": 2.0, "weight": 0.1, "label_weight": 0.9}
    helps, words, _ = judge([], grid(0.2, 0.2), 1000)
    assert helps is False
    assert "unlikely to help here, because" in words
    broken = teacher_quality(*task_logits((2, 0, 1)))
    helps, words, method = judge(broken, grid(0.05, 0.2), 1000)
    assert helps is False
    assert "order of the classes" in words
    assert method is None
    assert judge([], None, 1000)[0] is None


def task_logits(order: tuple[int, ...]) -> tuple:
    x, y = task(300, 0)
    logits = make_teacher(order)(x).detach()
    return logits, y, ("a", "b", "c"), logits


def test_the_size_probe_cuts_what_is_not_needed() -> None:
    x, _ = task(400, 3)
    teacher = make_teacher()
    student = mlp(classes=3, shape=(6,), widths=(40,))
    before = {name: value.clone() for name, value in student.state_dict().items()}
    found = effective_size(student, (x, teacher(x).detach()), task(200, 4), epochs=25)
    report = size_report(*found)
    assert report["needed"] < 30
    assert report["parameters_needed"] < report["parameters"]
    assert sum(row["alive"] for row in report["layers"]) == report["needed"]
    assert all(torch.equal(before[k], v) for k, v in student.state_dict().items())


def test_a_whole_diagnosis() -> None:
    student = mlp(classes=3, shape=(6,), widths=(5,))
    calls: list[str] = []
    found = diagnose(
        student,
        make_teacher(),
        make_data(),
        samples=64,
        report=lambda done, total, words: calls.append(words),
    )
    assert calls == ["teacher", "difficulty", "size", "start", "done"]
    assert found.difficulty is not None
    assert found.start is not None
    assert found.start["copy"] < found.start["none"]
    assert levels(list(found.preflight))["teacher's accuracy"] == "good"
    assert not found.notes
    plain = json.loads(json.dumps(found.as_json()))
    assert plain["verdict"]["method"]["name"] == "kd"
    assert len(plain["difficulty"]["cells"]) == 21


def test_what_cannot_be_probed_is_said() -> None:
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
    found = diagnose(
        nn.Sequential(nn.Linear(6, 3)), teacher, make_data(), samples=16, skip=("difficulty",)
    )
    assert found.difficulty is None
    assert found.helps is None or found.helps is False
    assert [note.partition(":")[0] for note in found.notes] == ["difficulty", "size", "start"]
    with pytest.raises(InputError, match="fewer than 16"):
        diagnose(nn.Linear(6, 3), teacher, make_data(), samples=4)
    with pytest.raises(InputError, match="cannot skip"):
        diagnose(nn.Linear(6, 3), teacher, make_data(), skip=("teacher",))
    with pytest.raises(InputError, match="name one"):
        diagnose(nn.Linear(6, 3), [], make_data())


def test_shrink_leaves_a_smaller_student_and_goes_on(tmp_path: Path) -> None:
    data, teacher = make_data(), make_teacher()
    training = {"epochs": 2, "batch": 50, "device": "cpu"}
    options = {"widths": [4], "training": training, "out": tmp_path / "small", "skip": ["export"]}
    result = shrink(teacher, data, **options)
    assert result.student[1][0].out_features == 4
    assert read_json(tmp_path / "small" / "size.json") == {"widths": [4]}
    before = (tmp_path / "small" / "diagnosis.json").stat().st_mtime_ns
    again = shrink(teacher, data, **options)
    assert (tmp_path / "small" / "diagnosis.json").stat().st_mtime_ns == before
    assert again.metrics == result.metrics


def test_shrink_by_parameters(tmp_path: Path) -> None:
    result = shrink(
        make_teacher(),
        make_data(),
        reduction=2.0,
        training={"epochs": 1, "batch": 50, "device": "cpu"},
        out=tmp_path / "small",
        skip=["export", "diagnose"],
    )
    parameters = sum(p.numel() for p in result.student.parameters())
    whole = sum(p.numel() for p in make_teacher().parameters())
    assert parameters <= whole / 2
    assert parameters > whole / 4


def test_names_and_plans() -> None:
    assert narrower_name("limbeck:convnet?widths=32,64", [4, 8]) == "limbeck:convnet?widths=4,8"
    assert narrower_name("limbeck:resnet20", [4]) is None
    assert narrower_name(None, [4]) is None
    with pytest.raises(InputError, match="above 1"):
        Plan(reduction=0.5)
    with pytest.raises(InputError, match="positive"):
        Plan(widths=[0])
    with pytest.raises(InputError, match="cannot skip"):
        Plan(skip=["size"])
    with pytest.raises(InputError, match="one for each"):
        narrowed(convnet(classes=2, in_channels=1, widths=(4, 4)), [2])
