"""Kept teacher logits: the same training as with the live teacher, without running it again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import limbeck
from limbeck.errors import InputError
from limbeck.recipe import DataSpec
from limbeck.teachers import Remembered


class Counted(nn.Module):
    """A teacher that says how many samples it was shown, through a tensor that copies share."""

    seen: list[int] = []  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        Counted.seen.append(len(x))
        logits: torch.Tensor = self.layers(x)
        return logits


@pytest.fixture
def teacher() -> nn.Module:
    torch.manual_seed(0)
    Counted.seen.clear()
    return Counted()


def test_logits_are_found_by_id() -> None:
    kept = Remembered(torch.tensor([7, 3, 5]), torch.tensor([[7.0], [3.0], [5.0]]))
    assert kept({"index": torch.tensor([5, 7, 3, 3])})["logits"].flatten().tolist() == [5, 7, 3, 3]


def test_features_are_refused() -> None:
    with pytest.raises(InputError, match="only the logits"):
        Remembered(torch.tensor([0]), torch.zeros(1, 2)).tap(["layer1"])


@pytest.mark.parametrize("labels", [None, 100])
def test_same_student_as_with_the_live_teacher(
    teacher: nn.Module, labels: int | None, tmp_path: Path
) -> None:
    data = limbeck.load_data(DataSpec(source="digits", labels=labels))
    students, shown = [], []
    for reuse in (True, False):
        Counted.seen.clear()
        result = limbeck.distill(
            "limbeck:mlp?widths=8",
            teacher,
            data,
            training={"epochs": 3, "batch": 50, "reuse_outputs": reuse},
            out=tmp_path / str(reuse),
            progress=False,
        )
        students.append(torch.cat([p.flatten() for p in result.student.parameters()]))
        shown.append(sum(Counted.seen))
    torch.testing.assert_close(*students, rtol=1e-4, atol=1e-5)
    per_epoch = 100 * 2 if labels else len(data.train) // 50 * 50
    samples = sum(map(len, data.splits.values()))
    assert shown[1] - shown[0] >= 3 * per_epoch - samples


def test_augmented_samples_are_shown_to_the_live_teacher(
    teacher: nn.Module, tmp_path: Path
) -> None:
    result = limbeck.distill(
        "limbeck:mlp?widths=8",
        teacher,
        "digits",
        training={"epochs": 2, "batch": 64, "views": ["crop"]},
        out=tmp_path / "run",
        progress=False,
    )
    assert Counted.seen.count(64) >= 2 * 20
    assert result.metrics["test.accuracy"] >= 0
