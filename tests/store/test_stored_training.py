"""Training from a store: the live teacher's training, or a refusal, never a wrong label."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from labelled import TRAINING, distilled, images, small_data, small_teacher, weights
from torch import Tensor, nn

import limbeck
from limbeck.data import ops, views
from limbeck.errors import InputError, RunError
from limbeck.store import TeacherStore, writer
from limbeck.store.manifest import MANIFEST
from limbeck.store.shards import file_sha256, read_shard, write_rows


def label(out: Path, data: Any = None, teacher: Any = None, **options: Any) -> TeacherStore:
    store: TeacherStore = limbeck.label(
        small_teacher() if teacher is None else teacher,
        small_data() if data is None else data,
        out=out,
        training=TRAINING,
        progress=False,
        **options,
    )
    return store


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    label(folder / "fp32", views=3, dtype="fp32")
    return folder


@pytest.fixture
def store(made: Path) -> TeacherStore:
    return TeacherStore(made / "fp32")


@pytest.mark.parametrize("method", ["kd", "dkd", "dist"])
def test_the_same_student_as_with_the_live_teacher(
    store: TeacherStore, method: str, tmp_path: Path
) -> None:
    found = [
        limbeck.distill(
            "limbeck:convnet?widths=4",
            teacher,
            small_data(),
            method=method,
            training={**TRAINING, "view_count": 3, "reuse_outputs": False},
            out=tmp_path / name,
            progress=False,
        )
        for name, teacher in (("live", small_teacher()), ("stored", store))
    ]
    torch.testing.assert_close(weights(found[0]), weights(found[1]), rtol=1e-3, atol=1e-4)
    assert found[0].metrics["test.agreement"] == found[1].metrics["test.agreement"]


def test_views_are_adopted_where_the_training_names_none(
    store: TeacherStore, tmp_path: Path
) -> None:
    named = distilled(store, small_data(), tmp_path / "a")
    adopted = limbeck.distill(
        named.student,
        f"store:{store.path}",
        small_data(),
        training={"epochs": 1, "batch": 32},
        out=tmp_path / "b",
        progress=False,
    )
    from limbeck.recipe import yaml

    said = yaml.read(adopted.run / "recipe.yaml")["training"]
    assert said["views"] == TRAINING["views"]
    assert said["view_count"] == 3


def test_data_in_another_order_draws_the_stored_views(store: TeacherStore, tmp_path: Path) -> None:
    """The live teacher on the very inputs that the training shows is what the store answers."""
    order = torch.randperm(160, generator=torch.Generator().manual_seed(2))
    from limbeck.engine.ranks import Ranks
    from limbeck.runs.api import make_recipe
    from limbeck.runs.execute import make_engine
    from limbeck.runs.job import make_job

    # Another order holds out other samples; those had the clean view only, so take no views of val.
    x, y = images(160)
    whole = limbeck.load_data(
        {
            "x_train": x,
            "y_train": y,
            "x_val": x[:8],
            "y_val": y[:8],
            "x_test": x[:8],
            "y_test": y[:8],
        }
    )
    turned = limbeck.load_data(
        {
            "x_train": x[order],
            "y_train": y[order],
            "x_val": x[:8],
            "y_val": y[:8],
            "x_test": x[:8],
            "y_test": y[:8],
        }
    )
    own = label(tmp_path / "own", whole, views=3, dtype="fp32")
    recipe = make_recipe(
        "limbeck:convnet?widths=4",
        turned,
        method="kd",
        task=None,
        training=TRAINING,
        input=None,
        seed=0,
    )
    job = make_job(recipe, teachers=[own], data=turned)
    engine = make_engine(job, Ranks(job.device))
    live = make_job(recipe, teachers=[small_teacher()], data=whole).teachers
    for step in (0, 6, 12):
        batch = engine.feed.batch(step)
        said = engine.teachers(batch)["teacher.logits"]
        torch.testing.assert_close(said, live(batch)["teacher.logits"], rtol=1e-4, atol=1e-4)


def test_changed_samples_are_named(store: TeacherStore, tmp_path: Path) -> None:
    x, y = images(160)
    x[5] = 0
    changed = limbeck.load_data((x, y, *images(40, 1)))
    with pytest.raises(InputError, match=r"does not hold 1 of 144 samples .*ids 5\)"):
        distilled(store, changed, tmp_path / "r")


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"views": ["flip"]}, "another augmentation"),
        ({"views": ["flip", {"crop": {"padding": 1}}]}, "padding is 1, there 2"),
        ({"view_count": 4}, "holds 3 view"),
    ],
)
def test_another_augmentation_is_refused(
    store: TeacherStore, training: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        distilled(store, small_data(), tmp_path / "r", **training)


def test_another_version_of_the_views_is_refused(
    store: TeacherStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "VERSION", views.VERSION + 1)
    with pytest.raises(InputError, match="version"):
        distilled(store, small_data(), tmp_path / "r")


def test_a_wrongly_mirrored_view_is_caught(
    store: TeacherStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = ops.FlipCrop.apply
    monkeypatch.setattr(ops.FlipCrop, "apply", lambda self, x, plan: right(self, x.flip(-1), plan))
    with pytest.raises(InputError, match="not what the teacher"):
        distilled(store, small_data(), tmp_path / "r")


def named_teacher(folder: Path, seed: int = 0) -> str:
    from limbeck.engine.checkpoint import save_tensors
    from limbeck.models.source import build_model

    torch.manual_seed(seed)
    model = build_model("limbeck:convnet?widths=6", shape=(3, 8, 8), classes=4)
    save_tensors(folder / "t.safetensors", model.state_dict(), {})
    return f"limbeck:convnet?widths=6@{folder / 't.safetensors'}"


def test_other_weights_under_the_same_name_are_refused(tmp_path: Path) -> None:
    store = label(tmp_path / "s", teacher=named_teacher(tmp_path), views=2)
    distilled(store, small_data(), tmp_path / "fits", epochs=1)
    named_teacher(tmp_path, seed=1)
    with pytest.raises(InputError, match="other weights"):
        distilled(store, small_data(), tmp_path / "r")


def test_rows_that_the_teacher_never_said_are_caught(tmp_path: Path) -> None:
    """Logits of other samples, with checksums that fit: only the teacher itself can tell."""
    store = label(tmp_path / "s", teacher=named_teacher(tmp_path), dtype="fp32")
    path = store.path / "train-00000.safetensors"
    wrong = {key: value.clone() for key, value in read_shard(path).items()}
    wrong["logits"] = wrong["logits"].flip(0)
    write_rows(path, wrong)
    manifest = json.loads((store.path / MANIFEST).read_text())
    for shard in manifest["shards"]:
        shard["sha256"] = file_sha256(store.path / shard["file"])
    (store.path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="does not hold what its teacher says"):
        distilled(TeacherStore(store.path), small_data(), tmp_path / "r", views=[])


def test_a_flipped_bit_is_found(store: TeacherStore, tmp_path: Path) -> None:
    copy = shutil.copytree(store.path, tmp_path / "s")
    path = copy / "train-00000.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    assert TeacherStore(copy).damaged() == ["train-00000.safetensors"]
    with pytest.raises(InputError, match=r"damaged: train-00000.safetensors"):
        distilled(TeacherStore(copy), small_data(), tmp_path / "r")


def test_a_missing_or_damaged_file_is_named(store: TeacherStore, tmp_path: Path) -> None:
    copy = shutil.copytree(store.path, tmp_path / "s")
    (copy / "val-00000.safetensors").unlink()
    with pytest.raises(InputError, match=r"val-00000.safetensors is missing"):
        TeacherStore(copy)
    (copy / "val-00000.safetensors").write_bytes(b"\xff" * 40)
    with pytest.raises(InputError, match=r"val-00000.safetensors is damaged"):
        TeacherStore(copy)
    (copy / MANIFEST).write_text('{"format": 1}')
    with pytest.raises(InputError, match=r"manifest.json is damaged: limbeck"):
        TeacherStore(copy)
    (copy / MANIFEST).write_text('{"format": 2}')
    with pytest.raises(InputError, match="upgrade limbeck"):
        TeacherStore(copy)


def test_other_classes_are_refused_and_another_order_of_them_is_not(
    store: TeacherStore, tmp_path: Path
) -> None:
    x, _ = images(160)
    test = images(40, 1)
    more = limbeck.load_data((x, (torch.arange(160) % 5), test[0], torch.arange(40) % 5))
    with pytest.raises(InputError, match="logits of 4 classes"):
        distilled(store, more, tmp_path / "r")
    from limbeck.teachers import Stored

    turned = Stored(store, ("2", "0", "3", "1")).outputs(small_data().train)
    plain = Stored(store, ("0", "1", "2", "3")).outputs(small_data().train)
    assert turned is not None
    assert plain is not None
    assert torch.equal(turned, plain[:, [2, 0, 3, 1]])


def test_features_must_have_been_stored(store: TeacherStore, tmp_path: Path) -> None:
    arguments = ("limbeck:convnet?widths=4", store, small_data())
    method = {"name": "fitnet", "taps": [["layer1.0", "0"]]}
    with pytest.raises(InputError, match="holds logits only"):
        limbeck.distill(*arguments, method=method, training=TRAINING, out=tmp_path / "r")


def test_a_method_on_features_trains_from_stored_maps(tmp_path: Path) -> None:
    kept = label(tmp_path / "s", taps=["2"], pooled=False, views=2, dtype="fp32")
    from limbeck.models.source import build_model
    from limbeck.nn.taps import tap_shapes

    small = build_model("limbeck:convnet?widths=4", shape=(3, 8, 8), classes=4)
    path = next(p for p, s in tap_shapes(small, torch.zeros(2, 3, 8, 8)).items() if len(s) == 3)
    method = {"name": "fitnet", "taps": [[path, "2"]], "weight": 1.0}
    training = {**TRAINING, "view_count": 2, "reuse_outputs": False}
    found = [
        limbeck.distill(
            "limbeck:convnet?widths=4",
            teacher,
            small_data(),
            method=method,
            training=training,
            out=tmp_path / name,
            progress=False,
        )
        for name, teacher in (("live", small_teacher()), ("stored", kept))
    ]
    torch.testing.assert_close(weights(found[0]), weights(found[1]), rtol=1e-3, atol=1e-4)


def test_a_method_that_looks_for_features_says_so(store: TeacherStore, tmp_path: Path) -> None:
    arguments = ("limbeck:convnet?widths=4", store, small_data())
    with pytest.raises(InputError, match="holds logits only; label again"):
        limbeck.distill(*arguments, method="simkd", training=TRAINING, out=tmp_path / "r")


class Broken(nn.Module):
    """NaN for dark images."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = small_teacher()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x)
        dark = x.amax((1, 2, 3)) < 0
        return torch.where(dark[:, None], torch.nan, logits)


def test_nan_outputs_are_named_and_may_be_left_out(tmp_path: Path) -> None:
    x, y = images(160)
    x[[3, 9]] = 0
    data = limbeck.load_data((x, y, *images(40, 1)))
    dark = [int(i) for i in data.train.ids if int(i) in (3, 9)]
    assert dark
    with pytest.raises(InputError, match=f"sample\\(s\\) {', '.join(map(str, dark))} of the train"):
        label(tmp_path / "s", data, Broken(), views=2)
    kept = label(tmp_path / "s", data, Broken(), views=2, skip_nonfinite=True, resume=True)
    assert len(kept.manifest.skipped) == 2
    result = distilled(kept, data, tmp_path / "r")
    assert all(torch.isfinite(value).all() for value in result.student.parameters())


def test_a_full_disk_keeps_what_is_labelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "PIECE_BYTES", 1)
    written = []

    def short_of_room(path: Path, record: dict[str, Tensor]) -> None:
        written.append(path)
        if len(written) == 4:
            raise RunError(f"cannot write {path}: No space left on device")
        write_rows(path, record)

    monkeypatch.setattr("limbeck.store.writer.write_rows", short_of_room)
    with pytest.raises(RunError, match="No space"):
        label(tmp_path / "s", batch=16)
    assert len(list((tmp_path / "s" / "pieces").glob("*.safetensors"))) == 2
    assert len(label(tmp_path / "s", batch=16, resume=True)) == 200


def test_two_stores_teach_as_two_live_teachers_do(tmp_path: Path) -> None:
    stores = limbeck.label(
        [small_teacher(1), small_teacher(2)],
        small_data(),
        views=2,
        dtype="fp32",
        training=TRAINING,
        out=tmp_path / "s",
        progress=False,
    )
    live = [small_teacher(1), small_teacher(2)]
    found = [
        distilled(teachers, small_data(), tmp_path / name, view_count=2, reuse_outputs=False)
        for name, teachers in (("live", live), ("stored", stores))
    ]
    torch.testing.assert_close(weights(found[0]), weights(found[1]), rtol=1e-3, atol=1e-4)


def test_a_pool_is_labelled_and_learned_from(tmp_path: Path) -> None:
    from limbeck.recipe import DataSpec

    data = limbeck.load_data(DataSpec(source="digits", labels=100))
    training = {"epochs": 2, "batch": 32, "views": ["crop"], "pool_ratio": 2}
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    store = limbeck.label(
        teacher, data, views=2, dtype="fp32", training=training, out=tmp_path / "s", progress=False
    )
    found = [
        limbeck.distill(
            "limbeck:mlp?widths=8",
            one,
            data,
            training={**training, "view_count": 2, "reuse_outputs": False},
            out=tmp_path / name,
            progress=False,
        )
        for name, one in (("live", teacher), ("stored", store))
    ]
    torch.testing.assert_close(weights(found[0]), weights(found[1]), rtol=1e-3, atol=1e-4)


def test_outputs_of_the_training_samples_alone_are_enough(tmp_path: Path) -> None:
    store = label(tmp_path / "s", splits=["train"], views=2)
    result = distilled(store, small_data(), tmp_path / "r")
    assert "test.accuracy" in result.metrics
    assert "test.agreement" not in result.metrics


def test_a_pool_without_any_labels_is_labelled_by_itself(tmp_path: Path) -> None:
    """And its rows are found again when it stands beside labelled data."""
    from limbeck.recipe import DataSpec

    x, y = images(200)
    np.savez(tmp_path / "pool.npz", x=x[100:].numpy())
    np.savez(tmp_path / "data.npz", x=x[:100].numpy(), y=y[:100].numpy())
    spec = {"source": str(tmp_path / "data.npz"), "unlabeled": str(tmp_path / "pool.npz")}
    teacher = limbeck.train(
        "limbeck:convnet?widths=4", spec["source"], training={"epochs": 1}, out=tmp_path / "teacher"
    )
    pool = limbeck.label(str(teacher.run), spec["unlabeled"], out=tmp_path / "pool")
    assert [part.name for part in pool.manifest.parts] == ["pool"]
    data = limbeck.load_data(DataSpec.model_validate(spec))
    assert data.pool is not None
    rows = pool.match(data.pool)
    assert (rows >= 0).all()
    both = limbeck.label(str(teacher.run), data, out=tmp_path / "both")
    assert torch.equal(pool.logits(rows), both.logits(both.match(data.pool)))


@pytest.mark.filterwarnings("ignore:the paraphraser")
def test_factor_transfer_needs_no_live_teacher_and_takes_its_paraphraser_along(
    tmp_path: Path,
) -> None:
    kept = label(tmp_path / "s", taps=["2"], pooled=False, views=2, dtype="fp32")
    method: dict[str, Any] = {"name": "factor_transfer", "prepare": {"epochs": 1}}
    arguments = ("limbeck:convnet?widths=4", kept, small_data())
    common: dict[str, Any] = {"training": TRAINING, "progress": False}
    first = limbeck.distill(*arguments, method=method, out=tmp_path / "first", **common)
    live = limbeck.distill(
        arguments[0],
        small_teacher(),
        arguments[2],
        method=method | {"taps": [["layer1", "2"]]},
        training={**TRAINING, "view_count": 2},
        out=tmp_path / "live",
        progress=False,
    )
    torch.testing.assert_close(weights(first), weights(live), rtol=1e-3, atol=1e-4)
    method["prepare"] = {"source": str(first.run)}
    again = limbeck.distill(*arguments, method=method, out=tmp_path / "again", **common)
    assert torch.equal(weights(again), weights(first))
    method["rate"] = 1.0
    with pytest.raises(InputError, match="holds no paraphrasers for the taps 2 at rate 1"):
        limbeck.distill(*arguments, method=method, out=tmp_path / "other", **common)
