import threading

import pytest
import torch

from limbeck.data.base import ArraySplit
from limbeck.data.fingerprint import sample_hashes
from limbeck.data.stream import Samples, StreamSplit
from limbeck.errors import InputError


class Numbers(Samples):
    """Sample i is full of i; remembers who read what."""

    def __init__(self, count, broken=None):
        self.count = count
        self.broken = broken
        self.reads = []

    def __len__(self):
        return self.count

    def read(self, position):
        self.reads.append((position, threading.current_thread().name))
        value = torch.full((2, 3), float(position))
        return self.broken(value) if self.broken and position == 7 else value

    def describe(self, position):
        return f"number {position}"


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_it_fetches_what_memory_would(workers):
    y = torch.arange(20) % 4
    stream = StreamSplit(Numbers(20), y, workers=workers)
    array = stream.in_memory()
    assert isinstance(array, ArraySplit)
    for rows in ([3, 1, 2], [0], list(range(20)), [5, 5]):
        found = stream.fetch(torch.tensor(rows))
        expected = array.fetch(torch.tensor(rows))
        assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert torch.equal(sample_hashes(stream), sample_hashes(array))


def test_what_is_announced_is_read_ahead_once():
    samples = Numbers(20)
    stream = StreamSplit(samples, workers=2)
    stream.fetch(torch.tensor([0]))
    samples.reads.clear()
    rows = torch.tensor([4, 9, 1])
    stream.prefetch(rows)
    assert stream.fetch(rows)["x"][:, 0, 0].tolist() == [4, 9, 1]
    assert sorted(position for position, _ in samples.reads) == [1, 4, 9]
    assert all(name.startswith("limbeck-read") for _, name in samples.reads)


def test_another_batch_than_the_announced_is_right_too():
    stream = StreamSplit(Numbers(20), workers=2)
    stream.prefetch(torch.tensor([4, 9]))
    assert stream.fetch(torch.tensor([2, 3]))["x"][:, 0, 0].tolist() == [2, 3]
    assert stream.fetch(torch.tensor([4, 9]))["x"][:, 0, 0].tolist() == [4, 9]


def test_selection_keeps_ids_and_labels():
    stream = StreamSplit(Numbers(20), torch.arange(20), torch.arange(20) + 100)
    some = stream.select(torch.tensor([8, 3, 5])).select(torch.tensor([2, 0]))
    record = some.fetch(torch.tensor([0, 1]))
    assert record["x"][:, 0, 0].tolist() == [5, 8]
    assert record["index"].tolist() == [105, 108]
    assert record["y"].tolist() == [5, 8]
    assert some.ids.tolist() == [105, 108]
    pool = some.without_labels().renumbered(torch.tensor([1, 2]))
    assert pool.fetch(torch.tensor([0, 1])).keys() == {"x", "index"}
    assert pool.fetch(torch.tensor([1]))["index"].tolist() == [2]
    assert some.y is not None


def test_the_fingerprint_sees_order_and_labels():
    stream = StreamSplit(Numbers(600), torch.arange(600))
    same = StreamSplit(Numbers(600), torch.arange(600))
    assert stream.fingerprint() == same.fingerprint()
    assert stream.fingerprint() != stream.without_labels().fingerprint()
    assert stream.fingerprint() != stream.select(torch.arange(599, -1, -1)).fingerprint()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (lambda x: x / 0, "number 7 holds NaN or infinite values"),
        (lambda x: x[:1], r"number 7 has shape \(1, 3\)"),
        (lambda x: x.long(), "number 7 has .* torch.int64"),
    ],
)
def test_a_bad_sample_is_named_when_it_is_read(broken, words, workers):
    stream = StreamSplit(Numbers(9, broken), workers=workers)
    stream.fetch(torch.tensor([0, 1]))
    with pytest.raises(InputError, match=words):
        stream.fetch(torch.arange(9))
