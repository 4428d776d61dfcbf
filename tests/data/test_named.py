import hashlib

import numpy as np
import pytest

from limbeck.data import download
from limbeck.data.arrays import read_npz
from limbeck.data.named import NAMED, NamedSet, array_sum, cache_folder, digits, find_named
from limbeck.errors import InputError, RunError

ARRAYS = {"x": np.arange(12, dtype=np.uint8).reshape(6, 2), "y": np.arange(6, dtype=np.uint8) % 2}


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """A folder of data sets and a cache, both empty."""
    laid_out = tmp_path / "data"
    laid_out.mkdir()
    monkeypatch.setenv("LIMBECK_DATA", str(laid_out))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return laid_out


def add(monkeypatch, fetch=None, sums=None):
    monkeypatch.setitem(NAMED, "mine", NamedSet("mine.npz", fetch, sums))


def save(path):
    with path.open("wb") as file:
        np.savez(file, **ARRAYS)


def test_the_folder_comes_before_the_cache(places, monkeypatch):
    add(monkeypatch)
    cache_folder().mkdir(parents=True)
    save(cache_folder() / "mine.npz")
    assert find_named("mine") == cache_folder() / "mine.npz"
    save(places / "mine.npz")
    assert find_named("mine") == places / "mine.npz"


def test_any_file_in_the_folder_has_a_name(places):
    (places / "own.parquet").write_bytes(b"")
    assert find_named("own") == places / "own.parquet"


def test_a_download_is_kept(monkeypatch):
    calls = []

    def fetch(path):
        calls.append(path)
        save(path)

    add(monkeypatch, fetch, {"x": array_sum(ARRAYS["x"])})
    assert find_named("mine") == find_named("mine") == cache_folder() / "mine.npz"
    assert len(calls) == 1
    assert [path.name for path in cache_folder().iterdir()] == ["mine.npz"]


def test_a_broken_download_leaves_nothing(monkeypatch):
    def fetch(path):
        path.write_bytes(b"half")
        raise ConnectionError("network is unreachable\nsecond line")

    add(monkeypatch, fetch)
    with pytest.raises(InputError) as caught:
        find_named("mine")
    message = str(caught.value)
    assert "put mine.npz into a folder and name that with export LIMBECK_DATA=FOLDER" in message
    assert "pip install 'limbeck[hf]'" in message
    assert message.endswith("(the download said: network is unreachable)")
    assert list(cache_folder().iterdir()) == []


def test_a_wrong_download_is_not_kept(monkeypatch):
    add(monkeypatch, save, {"x": "0" * 64})
    with pytest.raises(InputError, match="the SHA-256 of its array 'x' differs"):
        find_named("mine")
    assert list(cache_folder().iterdir()) == []


def test_known_sets_are_checked_where_they_lie(places):
    x, y = np.zeros((6, 28, 28), np.uint8), np.arange(6)
    np.savez(places / "fashion-mnist.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    with pytest.raises(InputError, match=r"fashion-mnist.npz is not fashion-mnist: .* 'x_train'"):
        find_named("fashion-mnist")


def test_what_nobody_offers_has_to_be_laid_out():
    with pytest.raises(
        InputError, match=r"put agnews-10k.parquet into a folder .* no library offers"
    ):
        find_named("agnews-10k")


def test_unknown_names_get_a_suggestion():
    with pytest.raises(InputError, match=r"unknown data 'cifar-10', did you mean 'cifar10'?"):
        find_named("cifar-10")


def test_sums_see_pixels_and_labels_alike():
    expected = hashlib.sha256(bytes([1, 0])).hexdigest()
    assert array_sum(np.array([1, 0])) == array_sum(np.array([[1, 0]], np.uint8)) == expected


def test_digits_are_pixels_in_the_unit_interval():
    arrays = digits()
    assert arrays["x"].shape == (1797, 1, 8, 8)
    assert arrays["x"].dtype == np.float32
    assert arrays["x"].min() == 0
    assert arrays["x"].max() == 1


def test_cifar_batches_are_brought_into_the_official_order(monkeypatch):
    batches = [
        np.random.default_rng(seed).integers(0, 10, 10_000).astype(np.uint8) for seed in range(5)
    ]
    first = hashlib.sha256(np.concatenate(batches[:2]).tobytes()).hexdigest()
    monkeypatch.setattr(download, "_CIFAR_FIRST", first)
    shuffled = np.concatenate([batches[place] for place in (3, 2, 1, 4, 0)])
    order = download._official_order(shuffled)
    assert np.array_equal(shuffled[order][:20_000], np.concatenate(batches[:2]))
    assert np.array_equal(np.sort(order), np.arange(50_000))
    with pytest.raises(RunError, match="its first batches are not found"):
        download._official_order(np.zeros(50_000, np.uint8))


def test_downloads_are_written_as_they_are_read(tmp_path):
    download._save(tmp_path / ".part", ARRAYS)
    assert np.array_equal(read_npz(tmp_path / ".part")["x"], ARRAYS["x"])
