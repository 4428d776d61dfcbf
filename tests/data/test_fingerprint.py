import torch
from hypothesis import given
from hypothesis import strategies as st

from limbeck.data.base import ArraySplit
from limbeck.data.fingerprint import sample_hashes, tensors_digest
from limbeck.data.random import generator


def test_digests_see_values_shapes_dtypes_and_order():
    x, y = torch.arange(6.0), torch.arange(6)
    digests = [
        tensors_digest(tensors)
        for tensors in (
            [x],
            [y],
            [x.view(2, 3)],
            [x, y],
            [y, x],
            [x, None],
            [None, x],
            [x.double()],
            [x.flip(0)],
            [],
            [torch.tensor(1.0)],
        )
    ]
    assert len(set(digests)) == len(digests)
    assert tensors_digest([x.clone(), y]) == digests[3]
    assert tensors_digest([torch.stack([x, x], 1)[:, 0]]) == digests[0]


@given(st.lists(st.binary(min_size=11, max_size=11), min_size=1, max_size=40))
def test_equal_samples_and_only_they_have_equal_hashes(rows):
    x = torch.tensor([list(row) for row in rows], dtype=torch.uint8)
    hashes = sample_hashes(ArraySplit(x)).tolist()
    for row, number in zip(rows, hashes, strict=True):
        for other, its in zip(rows, hashes, strict=True):
            assert (row == other) == (number == its)


def test_hashes_know_the_place_of_a_byte_and_the_length():
    x = torch.eye(64, dtype=torch.uint8)
    padded = torch.zeros(64, 65, dtype=torch.uint8)
    padded[:, :64] = x
    hashes = torch.cat([sample_hashes(ArraySplit(x)), sample_hashes(ArraySplit(padded))])
    assert len(hashes.unique()) == 128
    top = torch.zeros(64 * 63 // 2, 512, dtype=torch.uint8)  # two highest bytes of words differ
    pairs = [(one, two) for one in range(64) for two in range(one)]
    for row, (one, two) in enumerate(pairs):
        top[row, one * 8 + 7] = top[row, two * 8 + 7] = 128
    assert len(sample_hashes(ArraySplit(top)).unique()) == len(pairs)


def test_hashes_find_rows_again_across_splits_and_labels():
    x = torch.randn(5000, 3, 4, 4, generator=generator(0, "x"))
    train = ArraySplit(x[:4500], torch.zeros(4500, dtype=torch.int64))
    test = ArraySplit(torch.cat([x[4500:], x[17:18]]), torch.ones(501, dtype=torch.int64))
    leaks = torch.isin(sample_hashes(test), sample_hashes(train))
    assert leaks.nonzero().flatten().tolist() == [500]
