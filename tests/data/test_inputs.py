import json

import numpy as np
import pytest
import torch
from PIL import Image

from limbeck.data.inputs import load_inputs
from limbeck.data.load import load_data
from limbeck.errors import InputError
from limbeck.recipe.spec import DataSpec


def raw(data):
    """What a run folder keeps of the data's encoding."""
    return json.loads(json.dumps(data.encode)), data.shape, dict(data.encode_tensors)


def images(folder, count, size=(8, 8)):
    for place in range(count):
        pixels = np.random.default_rng(place).integers(0, 255, (*size, 3), dtype=np.uint8)
        path = folder / "ab"[place % 2] / f"{place:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


def table(path, count, columns="label,number,word"):
    rows = [
        {
            "label": "ab"[place % 2],
            "number": str(place),
            "word": f"w{place % 3}",
            "text": f"word{place % 7} and word{place % 5}",
        }
        for place in range(count)
    ]
    names = columns.split(",")
    path.write_text("\n".join([columns, *(",".join(row[name] for name in names) for row in rows)]))
    return path


def same_as_training(data, found):
    for split in (data.train, data.val, data.test):
        record = split.fetch(torch.arange(len(split)))
        assert torch.equal(found.fetch(record["index"])["x"], record["x"])
    assert found.y is None
    assert found.ids.tolist() == list(range(len(found)))


def test_arrays(tmp_path):
    x = np.random.default_rng(0).normal(size=(30, 4))
    np.savez(tmp_path / "p.npz", x=x)
    same_as_training(
        load_data((x, np.arange(30) % 2)),
        load_inputs(tmp_path / "p.npz", *raw(load_data((x, np.arange(30) % 2)))),
    )


@pytest.mark.parametrize("stream", [None, True])
def test_folders_of_images_flat_or_nested(tmp_path, stream):
    images(tmp_path / "train", 30)
    data = load_data(DataSpec(source=str(tmp_path / "train"), stream=stream))
    same_as_training(data, load_inputs(tmp_path / "train", *raw(data)))
    flat = load_inputs(tmp_path / "train" / "a", *raw(data))
    nested = load_inputs(tmp_path / "train", *raw(data))
    rows = torch.arange(15)
    assert torch.equal(flat.fetch(rows)["x"], nested.fetch(rows)["x"])


def test_other_sizes_are_resized(tmp_path):
    images(tmp_path / "train", 12)
    images(tmp_path / "new", 2, size=(20, 11))
    data = load_data(str(tmp_path / "train"))
    assert load_inputs(tmp_path / "new", *raw(data)).fetch(torch.arange(2))["x"].shape == (
        2,
        3,
        8,
        8,
    )


def test_a_folder_of_images_fits_digits(tmp_path):
    images(tmp_path, 2)
    x = load_inputs(tmp_path, *raw(load_data("digits"))).fetch(torch.arange(2))["x"]
    assert x.shape == (2, 1, 8, 8)
    assert x.dtype == torch.float32
    assert 0.1 < x.max() <= 1


@pytest.mark.parametrize("options", [{}, {"encode": "hash", "features": 16}, {"encode": "tokens"}])
@pytest.mark.parametrize("columns", ["label,number,word", "label,text"])
def test_tables_and_texts_without_labels(tmp_path, columns, options):
    data = load_data(DataSpec(source=str(table(tmp_path / "t.csv", 40, columns)), **options))
    new = table(tmp_path / "n.csv", 40, columns.removeprefix("label,"))
    same_as_training(data, load_inputs(new, *raw(data)))


def test_what_does_not_fit_is_refused(tmp_path):
    x = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    data = load_data((x, np.arange(30) % 2))
    x[3, 2] = np.nan
    cases = {
        "nan": (x, r"1 of 30 samples of .*nan.npz hold NaN .* index 3"),
        "wide": (x[:, :3], r"have shape \(3,\), those of the training \(4,\)"),
        "byte": (
            np.nan_to_num(x).astype(np.uint8),
            "are uint8, those of the training were float32",
        ),
    }
    for name, (array, words) in cases.items():
        np.savez(tmp_path / f"{name}.npz", x=np.nan_to_num(array) if name != "nan" else array)
        with pytest.raises(InputError, match=words):
            load_inputs(tmp_path / f"{name}.npz", *raw(data))
    np.savez(tmp_path / "other.npz", z=x)
    with pytest.raises(InputError, match="has no array 'x'; it holds z"):
        load_inputs(tmp_path / "other.npz", *raw(data))
    table(tmp_path / "t.csv", 4)
    with pytest.raises(InputError, match=r"t.csv is another kind of data .*: arrays \(.npz\)"):
        load_inputs(tmp_path / "t.csv", *raw(data))
    with pytest.raises(InputError, match=r"no file or folder .*gone.npz"):
        load_inputs(tmp_path / "gone.npz", *raw(data))
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(InputError, match=r"x.txt is of no kind that can be read"):
        load_inputs(tmp_path / "x.txt", *raw(data))
