import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, Subset, TensorDataset

from limbeck.data.datasets import dataset_source, is_dataset
from limbeck.data.stream import StreamSplit
from limbeck.errors import InputError
from limbeck.recipe.spec import DataSpec


class Listed(Dataset):
    def __init__(self, items, **attributes):
        self.items = items
        self.__dict__.update(attributes)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, position):
        item = self.items[position]
        return item() if callable(item) else item


def read(dataset, **options):
    return dataset_source({"train": dataset}, DataSpec(**options), name="mine", workers=0)


PIXELS = np.random.default_rng(0).integers(0, 255, (5, 6, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("x", "shape", "dtype"),
    [
        (torch.zeros(4), (4,), torch.float32),
        (np.zeros(4), (4,), torch.float32),
        (np.zeros(4, np.int64), (4,), torch.int64),
        (torch.zeros(3, 5, 6), (3, 5, 6), torch.float32),
        (PIXELS, (3, 5, 6), torch.uint8),
        (PIXELS[..., 0], (1, 5, 6), torch.uint8),
        (Image.fromarray(PIXELS), (3, 5, 6), torch.uint8),
        (Image.fromarray(PIXELS[..., 0]), (1, 5, 6), torch.uint8),
        (Image.fromarray(PIXELS).convert("RGBA"), (3, 5, 6), torch.uint8),
    ],
)
def test_items_of_many_kinds(x, shape, dtype):
    source = read(Listed([(x, 0), (x, 1)]))
    found = source.parts["train"].fetch(torch.tensor([1]))
    assert found["x"].shape == (1, *shape)
    assert found["x"].dtype == dtype
    assert found["y"].tolist() == [1]
    assert source.kind == ("image" if len(shape) == 3 else "array")


def test_dictionaries_and_tensor_labels():
    items = [{"x": torch.ones(2) * place, "y": torch.tensor(place % 2)} for place in range(4)]
    assert read(Listed(items)).labels["train"].tolist() == [0, 1, 0, 1]


def test_labels_come_from_targets_without_reading_samples():
    def refuse():
        pytest.fail("a sample was read for its label")

    items = [(torch.zeros(2), place % 2) for place in range(300)] + [refuse]
    with pytest.raises(pytest.fail.Exception):
        read(Listed(items), stream=True)
    targets = [place % 2 for place in range(301)]
    assert read(Listed(items, targets=targets), stream=True).labels["train"].tolist() == targets


def test_torch_data_sets_and_their_parts():
    whole = TensorDataset(torch.randn(12, 3), torch.arange(12) % 3)
    parts = {"train": Subset(whole, range(8)), "test": Subset(whole, range(8, 12))}
    source = dataset_source(parts, DataSpec(stream=True), name="mine", workers=2)
    assert isinstance(source.parts["test"], StreamSplit)
    assert torch.equal(source.parts["test"].fetch(torch.tensor([1]))["x"][0], whole[9][0])


def test_random_transforms_are_refused():
    with pytest.raises(InputError, match=r"sample 0 of mine \(train\) differs .* training.views"):
        read(Listed([lambda: (torch.rand(3), 0)] * 4))


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([], "the train part of mine is empty"),
        ([torch.zeros(3)] * 3, r"sample 0 of mine \(train\) has no label; items must be"),
        ([{"image": 1, "label": 2}] * 3, r"items of mine \(train\) have keys image, label"),
        ([(1.0, 0), (2.0, 1)], "is a single number; samples need an axis"),
        ([(torch.zeros(3), 0), (torch.zeros(2), 1)], r"sample 1 .* has shape \(2,\)"),
        ([(torch.zeros(3), 0), (torch.zeros(3) / 0, 1)], "sample 1 .* differs|holds NaN"),
    ],
)
def test_bad_items_are_refused(items, words):
    with pytest.raises(InputError, match=words):
        read(Listed(items))


def test_what_counts_as_a_data_set():
    assert is_dataset(Listed([1]))
    assert not is_dataset(iter([1]))
    assert not is_dataset(3)
