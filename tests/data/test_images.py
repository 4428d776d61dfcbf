import numpy as np
import pytest
import torch
from PIL import Image

from limbeck.data.images import folder_source, image_files
from limbeck.data.stream import StreamSplit
from limbeck.errors import InputError
from limbeck.recipe.spec import DataSpec


def picture(path, seed=0, size=(8, 6), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    pixels = np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.fixture
def folder(tmp_path):
    for place, name in enumerate(["cat/1.png", "cat/2.PNG", "dog/1.png", "dog/deep/2.png"]):
        picture(tmp_path / name, place)
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "cat" / ".hidden.png").write_text("no image")
    return tmp_path


def read(folder, **options):
    return folder_source(folder, DataSpec(**options), workers=0)


@pytest.mark.parametrize("stream", [None, True])
def test_a_class_is_a_folder(folder, stream):
    source = read(folder, stream=stream)
    assert source.classes == ("cat", "dog")
    assert source.labels["train"].tolist() == [0, 0, 1, 1]
    record = source.parts["train"].fetch(torch.tensor([3, 0]))
    assert record["x"].shape == (2, 3, 6, 8)
    assert record["x"].dtype == torch.uint8
    assert record["y"].tolist() == [1, 0]
    expected = np.asarray(Image.open(folder / "dog/deep/2.png"))
    assert np.array_equal(record["x"][0].permute(1, 2, 0).numpy(), expected)
    assert isinstance(source.parts["train"], StreamSplit) == bool(stream)


def test_parts_are_folders_of_folders(tmp_path):
    for part in ("train", "validation", "test"):
        for name in ("a", "b"):
            picture(tmp_path / part / name / "1.png")
    assert set(read(tmp_path).parts) == {"train", "val", "test"}


def test_grey_images_have_one_channel_and_one_coloured_makes_three(tmp_path):
    for name in ("a/1.png", "b/1.png"):
        picture(tmp_path / name, mode="L")
    assert read(tmp_path).parts["train"].fetch(torch.tensor([0]))["x"].shape == (1, 1, 6, 8)
    picture(tmp_path / "b/2.png")
    assert read(tmp_path).parts["train"].fetch(torch.tensor([0]))["x"].shape == (1, 3, 6, 8)


def test_images_of_all_sizes_are_resized_on_request(folder):
    picture(folder / "cat/3.png", size=(20, 9))
    with pytest.raises(
        InputError, match=r"differ in size: .*1.png is 8 x 6, .*3.png is 20 x 9.*size 6"
    ):
        read(folder)
    source = read(folder, size=5)
    assert source.parts["train"].fetch(torch.arange(5))["x"].shape == (5, 3, 5, 5)
    assert source.encode["size"] == [5, 5]


@pytest.mark.parametrize("stream", [None, True])
def test_an_unreadable_image_is_named(folder, stream):
    (folder / "dog/1.png").write_bytes(b"not an image")
    with pytest.raises(
        InputError, match=r"dog/1.png is not a readable image: .*; repair or remove"
    ):
        read(folder, stream=stream)


@pytest.mark.parametrize("stream", [None, True])
def test_an_image_with_a_damaged_body_is_named(folder, stream):
    path = folder / "dog/1.png"
    path.write_bytes(path.read_bytes()[:80])
    with pytest.raises(InputError, match=r"dog/1.png is not a readable image"):
        read(folder, stream=stream).parts["train"].fetch(torch.arange(4))


def test_bad_folders_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"the train part of .* is empty: no image file"):
        read(tmp_path)
    picture(tmp_path / "1.png")
    with pytest.raises(InputError, match=r"1.png lies outside any class; put images into"):
        read(tmp_path)


def test_a_test_class_must_be_known(tmp_path):
    for name in ("train/cat/1.png", "train/dog/1.png", "test/dig/1.png"):
        picture(tmp_path / name)
    with pytest.raises(InputError, match="has label 'dig', did you mean 'dog'"):
        read(tmp_path)


def test_files_are_listed_in_the_order_of_samples(folder):
    names = [path.relative_to(folder).as_posix() for path in image_files(folder)]
    assert names == ["cat/1.png", "cat/2.PNG", "dog/1.png", "dog/deep/2.png"]
