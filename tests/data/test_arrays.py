import numpy as np
import pytest
import torch

from limbeck.data.arrays import array_source, encoding, read_npz, samples
from limbeck.errors import InputError

Y = np.arange(6) % 2


def test_a_round_trip_through_npz(tmp_path):
    x = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    np.savez(tmp_path / "a.npz", x=x, y=Y)
    source = array_source(read_npz(tmp_path / "a.npz"), "a.npz")
    assert source.kind == "array"
    record = source.parts["train"].fetch(torch.tensor([4, 1]))
    assert torch.equal(record["x"], torch.from_numpy(x[[4, 1]]))
    assert record["y"].tolist() == [0, 1]
    assert record["index"].tolist() == [4, 1]


@pytest.mark.parametrize(
    ("x", "shape", "dtype"),
    [
        (np.zeros((4, 9, 7), np.uint8), (4, 1, 9, 7), torch.uint8),
        (np.zeros((4, 9, 7, 3), np.uint8), (4, 3, 9, 7), torch.uint8),
        (np.zeros((4, 3, 9, 7), np.uint8), (4, 3, 9, 7), torch.uint8),
        (np.zeros((4, 9, 7, 3), np.float64), (4, 9, 7, 3), torch.float32),
        (np.zeros((4, 5), np.float16), (4, 5), torch.float32),
        (np.zeros((4, 5), np.int16), (4, 5), torch.float32),
        (np.zeros((4, 5), np.uint16), (4, 5), torch.float32),
        (np.zeros((4, 5), bool), (4, 5), torch.float32),
        (np.zeros((4, 5), np.int32), (4, 5), torch.int64),
        (np.zeros((4, 5), np.uint32), (4, 5), torch.int64),
        (torch.zeros(4, 5, dtype=torch.bfloat16, requires_grad=True), (4, 5), torch.float32),
    ],
)
def test_samples_take_the_form_that_models_read(x, shape, dtype):
    found = samples(x, "x")
    assert found.shape == shape
    assert found.dtype == dtype
    assert not found.requires_grad


def test_channels_move_with_their_pixels():
    x = np.random.default_rng(0).integers(0, 255, (2, 8, 8, 3), dtype=np.uint8)
    assert samples(x, "x")[1, 2, 3, 4] == x[1, 3, 4, 2]


def test_classes_may_be_named_in_the_file():
    source = array_source(
        {"x": np.zeros((6, 2)), "y": Y, "classes": np.array([b"no", b"yes"])}, "a"
    )
    assert source.classes == ("no", "yes")


def test_the_encoding_knows_images_in_the_unit_interval():
    assert encoding(torch.rand(2, 3, 4, 5)) == {
        "kind": "image", "dtype": "float32", "channels": 3, "size": [4, 5], "unit": True
    }  # fmt: skip
    assert not encoding(torch.rand(2, 3, 4, 5) * 2)["unit"]
    assert encoding(torch.zeros(2, 3, dtype=torch.int64)) == {"kind": "array", "dtype": "int64"}


class Boom:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was run",))


def test_pickled_objects_are_refused_and_not_run(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.array([Boom(), Boom()], dtype=object), y=Y)
    with pytest.raises(InputError, match="holds pickled Python objects, which are refused"):
        read_npz(tmp_path / "a.npz")


@pytest.mark.parametrize("cut", [0, 10, 300])
def test_damaged_files_are_refused(tmp_path, cut):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.zeros((60, 3)), y=np.arange(60))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InputError, match=r"a.npz cannot be read as .npz"):
        read_npz(path)


def test_flipped_bytes_are_found(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.random.default_rng(0).normal(size=(60, 30)), y=np.arange(60))
    data = bytearray(path.read_bytes())
    data[2000] ^= 255
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"cannot be read as .npz"):
        read_npz(path)


def test_a_single_array_is_no_npz(tmp_path):
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(InputError, match="holds a single array"):
        read_npz(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": np.zeros((6, 2))}, "set has x but no y: samples without labels are a pool"),
        ({"x": np.zeros((5, 2)), "y": Y}, "has 5 samples in x but 6 labels in y"),
        ({"x": np.zeros((0, 2)), "y": Y[:0]}, "x of the train part of set is empty"),
        ({"x": np.zeros(6), "y": Y}, r"shape \(6,\); samples need an axis"),
        ({"x": np.array(["a"] * 6), "y": Y}, "holds <U1 values; samples must be numbers"),
        ({"x_train": np.zeros((6, 2)), "y_trian": Y}, "no array 'y_train', did you mean 'y_trian'"),
        ({"data": 1}, "no array 'x_train'; it holds data, expected are x and y"),
        ({}, "it holds nothing"),
        ({"x": np.zeros((6, 2)), "bag": Y, "y": Y}, "holds bags of instances"),
        (
            {"x_train": np.zeros((6, 2)), "y_train": Y, "x_test": np.zeros((6, 3)), "y_test": Y},
            r"test part of set are torch.float32 of shape \(3,\), those of its train part",
        ),
        (
            {"x_train": np.zeros((6, 2)), "y_train": Y, "x_val": np.zeros((6, 2))},
            "no array 'y_val'",
        ),
    ],
)
def test_bad_arrays_are_refused(arrays, words):
    with pytest.raises(InputError, match=words):
        array_source(arrays, "set")
