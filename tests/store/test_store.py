"""A store is written, found again by content, and read exactly."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from labelled import TRAINING, images, small_data, small_teacher
from torch import nn

import limbeck
from limbeck.data.fingerprint import sample_hashes
from limbeck.errors import InputError
from limbeck.runs.stores import make_views
from limbeck.store import TeacherStore, writer
from limbeck.teachers import LiveTeacher


def label(out: Path, **options: Any) -> TeacherStore:
    store: TeacherStore = limbeck.label(
        small_teacher(), small_data(), out=out, training=TRAINING, progress=False, **options
    )
    return store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TeacherStore:
    return label(tmp_path_factory.mktemp("made") / "store", views=3, dtype="fp32", taps=["2"])


def test_every_view_holds_what_the_teacher_says_of_it(store: TeacherStore) -> None:
    from limbeck.recipe.spec import Recipe

    data = small_data()
    recipe = Recipe.model_validate({"training": {**TRAINING, "view_count": 3}})
    views = make_views(recipe, data.kind, {"train": data.train})
    assert views is not None
    clean = data.train.fetch(torch.arange(20))
    rows = store.match(data.train, 3)[:20]
    mean, std = data.mean, data.std
    teacher = small_teacher().eval()
    assert isinstance(teacher, nn.Sequential)
    assert mean is not None
    assert std is not None
    for view in range(3):
        x = views["train"](clean, view)["x"].float() / 255
        shift, scale = (torch.tensor(one).view(-1, 1, 1) for one in (mean, std))
        said = teacher((x - shift) / scale)
        torch.testing.assert_close(store.logits(rows, view), said, rtol=1e-4, atol=1e-4)
        maps = teacher[:3]((x - shift) / scale)
        kept = store.read(rows, view)["feature.2"]
        torch.testing.assert_close(kept, maps.mean((2, 3)), rtol=1e-4, atol=1e-4)


def test_views_of_each_sample_may_be_mixed_in_one_read(store: TeacherStore) -> None:
    rows, view = torch.tensor([5, 0, 5]), torch.tensor([2, 1, 0])
    mixed = store.logits(rows, view)
    for place in range(3):
        one = store.logits(rows[place : place + 1], int(view[place]))
        assert torch.equal(mixed[place : place + 1], one)


def test_rows_are_found_by_content_in_any_order(store: TeacherStore) -> None:
    order = torch.randperm(160, generator=torch.Generator().manual_seed(4))
    ours, theirs = small_data(), small_data(order)
    for split in (theirs.train, theirs.val):
        rows = store.match(split)
        assert (rows >= 0).all()
        x = split.fetch(torch.arange(len(split)))["x"]
        everything = torch.cat([images(160)[0], images(40, 1)[0]])
        ids = store.ids(rows)
        assert torch.equal(everything[ids], x)
    assert (store.match(ours.train, 3) >= 0).all()


def test_unknown_content_has_no_row(store: TeacherStore) -> None:
    assert (store.match(small_data(seed=7).train) == -1).all()
    assert (store.match(small_data().val, 2) == -1).all()  # labelled in the clean view only


def test_equal_samples_have_rows_of_their_own(tmp_path: Path) -> None:
    x, y = images(40)
    x[10:20] = x[0:10]
    data = limbeck.load_data((x, y, x[20:], y[20:]))
    store = limbeck.label(
        small_teacher(), data, views=2, training=TRAINING, out=tmp_path / "s", progress=False
    )
    rows = store.match(data.train, 2)
    assert len(rows.unique()) == len(data.train)
    assert torch.equal(store.ids(rows), data.train.ids)


def test_many_shards_read_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = label(tmp_path / "one", views=2, top_k=2)
    monkeypatch.setattr(writer, "SHARD_BYTES", 2_000)
    parts = label(tmp_path / "many", views=2, top_k=2)
    assert len(parts.manifest.shards) > len(whole.manifest.shards)
    rows = torch.tensor([0, 3, len(whole) - 1, 77, 77, 20])
    for key, value in whole.read(rows).items():
        assert torch.equal(parts.read(rows)[key], value), key
    assert torch.equal(whole.ids(rows), parts.ids(rows))


@pytest.mark.parametrize(("dtype", "rounding"), [("fp16", 2**-10), ("bf16", 2**-7)])
def test_half_precision_rounds_what_fp32_keeps(
    store: TeacherStore, dtype: str, rounding: float, tmp_path: Path
) -> None:
    kept = label(tmp_path / "s", views=3, dtype=dtype, taps=["2"])
    rows = torch.arange(30)
    exact = store.read(rows, 1)
    for key, value in kept.read(rows, 1).items():
        assert value.itemsize == 2
        torch.testing.assert_close(value.float(), exact[key], rtol=rounding, atol=1e-5)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


def test_an_interrupted_labelling_goes_on_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    label(tmp_path / "whole", views=2, batch=16)
    monkeypatch.setattr(writer, "PIECE_BYTES", 1)
    calls = LiveTeacher.__call__
    answered = []

    def interrupted(self: LiveTeacher, batch: dict[str, torch.Tensor]) -> object:
        answered.append(len(batch["x"]))
        if len(answered) == 9:
            raise KeyboardInterrupt
        return calls(self, batch)

    monkeypatch.setattr(LiveTeacher, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        label(tmp_path / "cut", views=2, batch=16)
    with pytest.raises(InputError, match="incomplete"):
        TeacherStore(tmp_path / "cut")
    before = sum(answered)
    label(tmp_path / "cut", views=2, batch=16, resume=True)
    assert files(tmp_path / "cut") == files(tmp_path / "whole")
    again = sum(answered) - before
    everything = 144 * 2 + 16 + 40
    assert again <= everything - 3 * 32 + 2 * 16  # the finished pieces were not labelled again


def test_a_labelling_that_was_begun_otherwise_is_refused(tmp_path: Path) -> None:
    label(tmp_path / "s", top_k=2)
    with pytest.raises(InputError, match="stands in"):
        label(tmp_path / "s", top_k=2)
    shutil.rmtree(tmp_path / "s")
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "plan.json").write_text(
        label(tmp_path / "t", top_k=3).manifest.model_dump_json()
    )
    with pytest.raises(InputError, match="top_k is 3, there 2"):
        label(tmp_path / "s", top_k=2, resume=True)


def test_a_store_may_be_moved(store: TeacherStore, tmp_path: Path) -> None:
    moved = shutil.copytree(store.path, tmp_path / "elsewhere")
    rows = torch.arange(len(store))
    assert torch.equal(TeacherStore(moved).logits(rows), store.logits(rows))


def test_hashes_are_of_the_content(store: TeacherStore) -> None:
    data = small_data()
    rows = store.find(sample_hashes(data.test or data.val))
    assert (rows >= 0).all()


def test_several_teachers_get_a_store_each(tmp_path: Path) -> None:
    stores = limbeck.label(
        [small_teacher(1), small_teacher(2)], small_data(), out=tmp_path / "s", progress=False
    )
    assert [store.path.name for store in stores] == ["0", "1"]
    assert not torch.equal(*(store.logits(torch.arange(9)) for store in stores))
