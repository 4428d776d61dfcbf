"""Teachers: frozen, in the data's class order, and several as one."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

import limbeck as lb
from limbeck.errors import InputError
from limbeck.nn.input import InputAdapter
from limbeck.recipe.spec import TeacherSpec
from limbeck.teachers.live import LiveTeacher, class_order
from limbeck.teachers.several import Teachers

X = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
SETTINGS = {"epochs": 2, "batch": 16, "device": "cpu"}


def network(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))


def arrays() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(90, 4, generator=torch.Generator().manual_seed(0))
    return x, x[:, :3].argmax(1)


def test_a_teacher_gives_plain_tensors_without_a_graph() -> None:
    teacher = LiveTeacher(network(0).train(), taps=["0"])
    said = teacher({"x": X})
    assert said.keys() == {"logits", "0"}
    for value in said.values():
        assert not value.requires_grad
        assert not value.is_inference()
    (said["logits"] * torch.ones(3, requires_grad=True)).sum().backward()
    assert not any(p.requires_grad for p in teacher.model.parameters())


def test_taps_are_asked_for_by_each_method_anew() -> None:
    teacher = LiveTeacher(network(0), taps=["0"])
    teacher.tap(["1"])
    assert teacher({"x": X}).keys() == {"logits", "0", "1"}
    teacher.tap(["2"])
    assert teacher({"x": X}).keys() == {"logits", "0", "2"}
    with pytest.raises(InputError, match="the teacher has no module '9'"):
        teacher.tap(["9"])


@pytest.mark.parametrize(
    ("given", "order"),
    [
        (["c", "a", "b"], [1, 2, 0]),
        ([2, 0, 1], [1, 2, 0]),
        (["x", "b", "a", "c"], [2, 1, 3]),
    ],
)
def test_the_order_of_the_classes(given: list[str | int], order: list[int]) -> None:
    assert class_order(given, ["a", "b", "c"], "t") == order


def test_a_class_that_the_teacher_lacks_is_named() -> None:
    with pytest.raises(InputError, match=r"'t' has no output for class\(es\) c"):
        class_order(["a", "b"], ["a", "b", "c"], "t")


def test_several_teachers_answer_with_their_mean_probabilities() -> None:
    members = [LiveTeacher(network(seed)) for seed in range(3)]
    record = Teachers(members)({"x": X})
    each = [member({"x": X})["logits"] for member in members]
    assert all(torch.equal(record[f"teacher.{n}.logits"], each[n]) for n in range(3))
    mean = torch.stack([logits.softmax(-1) for logits in each]).mean(0)
    torch.testing.assert_close(record["teacher.logits"].softmax(-1), mean)
    torch.testing.assert_close(record["teacher.logits"].exp(), mean)


def test_one_teacher_keeps_its_own_logits_and_none_says_nothing() -> None:
    teacher = LiveTeacher(network(0))
    record = Teachers([teacher])({"x": X})
    assert torch.equal(record["teacher.logits"], teacher({"x": X})["logits"])
    assert Teachers()({"x": X}) == {}


def test_a_teacher_sees_its_own_normalization() -> None:
    images = torch.rand(2, 1, 2, 2)
    teacher = LiveTeacher(nn.Flatten(), InputAdapter((0.5,), (0.5,)))
    torch.testing.assert_close(teacher({"x": images})["logits"], (images.flatten(1) - 0.5) * 2)


def test_training_the_student_leaves_the_teacher_as_it_was(tmp_path: Path) -> None:
    teacher = network(7).train()
    before = copy.deepcopy(teacher.state_dict())
    lb.distill(network, teacher, arrays(), training=SETTINGS, out=tmp_path / "run", progress=False)
    after = teacher.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert teacher.training
    assert all(p.requires_grad and p.grad is None for p in teacher.parameters())


def test_a_teacher_with_other_class_order_teaches_the_same(tmp_path: Path) -> None:
    """Its last layer is permuted, and `classes` says how."""
    from safetensors.torch import save_file

    from limbeck.models.source import build_model

    name = "limbeck:mlp?widths=6"
    model = build_model(name, shape=(4,), classes=3)
    order = [2, 0, 1]
    state = dict(model.state_dict())
    save_file(state, tmp_path / "plain.safetensors")
    for key in ("linear.weight", "linear.bias"):
        state[key] = state[key][order].clone()
    save_file(state, tmp_path / "permuted.safetensors")

    def student(teacher: TeacherSpec) -> dict[str, torch.Tensor]:
        out = tmp_path / f"run-{Path(teacher.model).stem}"
        result = lb.distill(network, teacher, arrays(), training=SETTINGS, out=out, progress=False)
        return dict(result.student.state_dict())

    plain = student(TeacherSpec(model=f"{name}@{tmp_path / 'plain.safetensors'}"))
    permuted = student(
        TeacherSpec(model=f"{name}@{tmp_path / 'permuted.safetensors'}", classes=order)
    )
    torch.testing.assert_close(plain, permuted)
