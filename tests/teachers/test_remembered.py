"""Kept teacher logits: the same training as with the live teacher, without running it again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import limbeck
from limbeck.data.base import ArraySplit, Split
from limbeck.data.views import Views, parse_views
from limbeck.errors import InputError
from limbeck.recipe import DataSpec
from limbeck.teachers import LiveTeacher, Memory, Remembered


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


def split_of(values: list[float], ids: list[int]) -> ArraySplit:
    return ArraySplit(
        torch.tensor(values)[:, None], torch.zeros(len(ids)).long(), torch.tensor(ids)
    )


def remembered(splits: dict[str, Split], views: dict[str, Views] | None = None) -> Remembered:
    teacher = LiveTeacher(nn.Identity())
    return Remembered(teacher, splits, views, Memory(), torch.device("cpu"))


def test_logits_are_found_by_id() -> None:
    kept = remembered({"train": split_of([7.0, 3.0, 5.0], [7, 3, 5])})
    assert kept({"index": torch.tensor([5, 7, 3, 3])})["logits"].flatten().tolist() == [5, 7, 3, 3]


def test_labeled_rows_and_pool_rows_have_views_of_their_own() -> None:
    splits: dict[str, Split] = {
        "train": split_of([1.0, 2.0], [0, 1]),
        "pool": split_of([10.0, 20.0], [2, 3]),
    }
    views = {
        name: parse_views([{"noise": {"std": 1.0}}], kind="array", seed=3, source=split)
        for name, split in splits.items()
    }
    batch = {
        "index": torch.tensor([1, 3, 2]),
        "y": torch.tensor([0]),
        "view": torch.tensor([2, 0, 0]),
    }
    said = remembered(splits, views)(batch)["logits"]
    seen = views["train"](splits["train"].fetch(torch.tensor([1])), 2)["x"]
    assert torch.equal(said, torch.cat([seen, torch.tensor([[20.0], [10.0]])]))


def test_a_table_is_made_once_and_the_oldest_goes_first() -> None:
    memory, made = Memory(limit=8 * 4), []

    def table(name: str) -> None:
        memory.get(name, lambda: made.append(name) or torch.zeros(4))

    for name in ("a", "b", "a", "c", "a", "b"):
        table(name)
    assert made == ["a", "b", "c", "b"]


def test_features_are_refused() -> None:
    with pytest.raises(InputError, match="only the logits"):
        remembered({"train": split_of([1.0], [0])}).tap(["layer1"])


@pytest.mark.parametrize("views", [None, 2])
@pytest.mark.parametrize("labels", [None, 100])
def test_same_student_as_with_the_live_teacher(
    teacher: nn.Module, labels: int | None, views: int | None, tmp_path: Path
) -> None:
    data = limbeck.load_data(DataSpec(source="digits", labels=labels))
    students, shown = [], []
    replayed = {} if views is None else {"views": ["crop"], "view_count": views}
    for reuse in (True, False):
        Counted.seen.clear()
        result = limbeck.distill(
            "limbeck:mlp?widths=8",
            teacher,
            data,
            training={"epochs": 4, "batch": 50, "reuse_outputs": reuse} | replayed,
            out=tmp_path / str(reuse),
            progress=False,
        )
        students.append(torch.cat([p.flatten() for p in result.student.parameters()]))
        shown.append(sum(Counted.seen))
    torch.testing.assert_close(*students, rtol=1e-4, atol=1e-5)
    per_epoch = 100 * 2 if labels else len(data.train) // 50 * 50
    samples = sum(map(len, data.splits.values()))
    assert shown[1] - shown[0] >= 4 * per_epoch - (views or 1) * samples


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
