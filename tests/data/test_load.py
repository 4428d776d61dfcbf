import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from limbeck.data.base import ArraySplit
from limbeck.data.load import load_data
from limbeck.data.stream import StreamSplit
from limbeck.errors import InputError
from limbeck.recipe.spec import DataSpec

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 5)).astype(np.float32)
Y = np.arange(60) % 3


def ids(split):
    return split.fetch(torch.arange(len(split)))["index"]


def test_digits():
    data = load_data("digits")
    assert (data.name, data.kind, data.shape) == ("digits", "image", (1, 8, 8))
    assert data.classes == tuple("0123456789")
    assert data.mean is None
    assert sum(map(len, data.splits.values())) == 1797
    assert data.train.fetch(torch.arange(3))["x"].max() <= 1


def test_every_form_of_arrays_is_the_same_data(tmp_path):
    np.savez(tmp_path / "a.npz", x=X, y=Y)
    forms = [
        (X, Y),
        (torch.from_numpy(X), torch.from_numpy(Y)),
        {"x": X, "y": Y},
        str(tmp_path / "a.npz"),
        tmp_path / "a.npz",
        DataSpec(source=str(tmp_path / "a.npz")),
        TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)),
        {"train": TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))},
    ]
    digests = [load_data(form).facts["digests"] for form in forms]
    assert all(one == digests[0] for one in digests)
    given = (X, Y, X[:9], Y[:9])
    assert load_data(given).facts["split"]["own"] == ["test"]
    data = load_data((X, Y))
    assert load_data(data) is data


def test_samples_keep_their_labels_and_ids():
    data = load_data((X, Y))
    for split in data.splits.values():
        record = split.fetch(torch.arange(len(split)))
        assert torch.equal(record["x"], torch.from_numpy(X)[record["index"]])
        assert torch.equal(record["y"], torch.from_numpy(Y)[record["index"]])
    assert torch.cat([ids(split) for split in data.splits.values()]).unique().numel() == 60


def test_bytes_stay_and_their_statistics_are_of_the_training_images():
    x = RNG.integers(0, 256, (60, 7, 6, 3), dtype=np.uint8)
    data = load_data((x, Y))
    images = data.train.x.numpy() / 255
    assert data.train.x.dtype == torch.uint8
    assert data.shape == (3, 7, 6)
    assert np.allclose(data.mean, images.mean((0, 2, 3)))
    assert np.allclose(data.std, images.std((0, 2, 3)))


def test_the_seed_decides_the_split():
    first = ids(load_data((X, Y)).train)
    assert torch.equal(ids(load_data((X, Y), seed=0).train), first)
    assert torch.equal(ids(load_data((X, Y), spec=DataSpec(split_seed=0)).train), first)
    assert not torch.equal(ids(load_data((X, Y), seed=1).train), first)
    assert torch.equal(
        ids(load_data((X, Y), seed=1).train),
        ids(load_data((X, Y), spec=DataSpec(split_seed=1)).train),
    )


def test_unlabelled_samples_form_the_pool(tmp_path):
    np.savez(tmp_path / "pool.npz", x=X[:10] * 2)
    spec = DataSpec(unlabeled=str(tmp_path / "pool.npz"))
    data = load_data((X, Y), spec=spec)
    assert data.pool.y is None
    assert ids(data.pool).tolist() == list(range(60, 70))
    assert torch.equal(data.pool.x, torch.from_numpy(X[:10] * 2))
    assert load_data((X, Y)).pool is None
    both = load_data((X, Y), spec=spec.model_copy(update={"labels": 6}))
    assert both.facts["sizes"] == {"train": 6, "val": 5, "test": 12, "pool": 47}
    assert both.pool.y is None
    everything = torch.cat([ids(both.train), ids(both.pool)])
    assert everything.unique().numel() == 53
    record = both.pool.fetch(torch.arange(37))
    assert torch.equal(record["x"], torch.from_numpy(X)[record["index"]])


def test_a_pool_of_texts_is_encoded_like_the_training(tmp_path):
    words = ["red fish", "blue fish", "old dog", "new dog"]
    rows = [f"{place % 2},{words[place % 4]} {place % 3}" for place in range(40)]
    (tmp_path / "t.csv").write_text("label,text\n" + "\n".join(rows))
    (tmp_path / "pool.csv").write_text("text\n" + "\n".join(row.split(",")[1] for row in rows))
    data = load_data(DataSpec(source=str(tmp_path / "t.csv"), unlabeled=str(tmp_path / "pool.csv")))
    train = data.train.fetch(torch.arange(len(data.train)))
    assert torch.equal(data.pool.x[train["index"]], train["x"])
    assert data.kind == "text"


def folder(root, count=24):
    for place in range(count):
        path = root / "abc"[place % 3] / f"{place:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RNG.integers(0, 256, (6, 6, 3), dtype=np.uint8)).save(path)
    return str(root)


@pytest.mark.parametrize("workers", [0, 2])
def test_streams_hold_what_memory_holds(tmp_path, workers):
    source = folder(tmp_path)
    memory = load_data(source)
    stream = load_data(DataSpec(source=source, stream=True, labels=6), workers=workers)
    whole = load_data(DataSpec(source=source, stream=True), workers=workers)
    assert isinstance(memory.train, ArraySplit)
    assert isinstance(stream.train, StreamSplit)
    assert isinstance(stream.pool, StreamSplit)
    assert np.allclose(whole.mean, memory.mean)
    assert whole.facts["streamed"]
    for name, split in memory.splits.items():
        expected = split.fetch(torch.arange(len(split)))
        found = whole.splits[name].fetch(torch.arange(len(split)))
        assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_a_streamed_pool_has_one_source(tmp_path):
    source = folder(tmp_path)
    spec = DataSpec(source=source, stream=True, labels=6, unlabeled=source)
    with pytest.raises(InputError, match=r"give either data.unlabeled or data.labels"):
        load_data(spec)


def test_facts_are_json_and_tell_the_data_apart():
    data = load_data((X, Y), spec=DataSpec(limit=30, val=0.2))
    assert json.loads(json.dumps(data.facts)) == data.facts
    assert data.facts["sizes"] == {"train": 24, "val": 6, "test": 12}
    assert data.facts["classes"]["val"] == {"0": 2, "1": 2, "2": 2}
    assert data.facts["split"]["held_out"] == {"val": 0.2, "test": 0.2}
    changed = X.copy()
    changed[ids(data.train)[0], 0] += 1
    other = load_data((changed, Y), spec=DataSpec(limit=30, val=0.2)).facts["digests"]
    assert other["train"] != data.facts["digests"]["train"]
    assert other["val"] == data.facts["digests"]["val"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_bad_inputs_say_where_they_are(value):
    x = X.copy()
    data = load_data((X, Y))
    first, second = ids(data.val)[:2].tolist()
    x[[first, second], 2] = value
    with pytest.raises(InputError, match=rf"2 of 5 samples of the val split .* index {first}"):
        load_data((x, Y))


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        ("no/such.npz", {}, "no file or folder no/such.npz"),
        ("digts", {}, "unknown data 'digts', did you mean 'digits'"),
        ((X, Y), {"stream": True}, "the arrays cannot stream; data.stream is for folders"),
        ((X, Y), {"limit": 5}, "data.limit is 5, but 3 classes need at least 6"),
        ((X, Y), {"labels": 2}, "data.labels is 2"),
        (
            (X, np.r_[Y[:-1], 3]),
            {},
            "class '3' has 1 training sample, but holding out test and val",
        ),
        ((X, Y * 0), {}, "has 1 class"),
        ((X, Y, X), {}, "data of type tuple cannot be read"),
        (3, {}, "data of type int cannot be read; give a path"),
        ({}, {}, "it holds nothing"),
    ],
)
def test_bad_sources_are_refused(source, options, words):
    with pytest.raises(InputError, match=words):
        load_data(source, spec=DataSpec(**options))


def test_corrupt_files_are_refused_by_name(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(InputError, match=r"a.npz cannot be read as .npz"):
        load_data(str(tmp_path / "a.npz"))
    (tmp_path / "a.pickle").write_bytes(b"")
    with pytest.raises(InputError, match=r"a.pickle is of no kind"):
        load_data(str(tmp_path / "a.pickle"))
