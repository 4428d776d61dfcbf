import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from limbeck.data.random import generator
from limbeck.data.splits import UNLABELED, assign, proportional
from limbeck.errors import InputError
from limbeck.recipe.spec import DataSpec

CLASSES = ("a", "b", "c")


def labels(*sizes, seed=0):
    y = torch.cat([torch.full((size,), place) for place, size in enumerate(sizes)])
    return y[torch.randperm(len(y), generator=generator(seed, "y"))]


def split(parts, seed=0, **options):
    return assign(parts, DataSpec(**options), seed=seed, classes=CLASSES)


def counts(y, places):
    return torch.bincount(y[places.rows], minlength=3).tolist()


@given(
    st.lists(st.integers(3, 60), min_size=2, max_size=3),
    st.floats(0.01, 0.6),
    st.floats(0.01, 0.6),
    st.integers(0, 5),
)
def test_parts_are_disjoint_complete_and_hold_every_class(sizes, val, test, seed):
    y = labels(*sizes)
    places = split({"train": y}, seed, val=val, test=test)
    rows = torch.cat([at.rows for at in places.values()])
    assert rows.sort().values.tolist() == list(range(len(y)))
    for at in places.values():
        assert at.part == "train"
        assert torch.equal(at.rows, at.rows.sort().values)
        assert min(counts(y, at)[: len(sizes)]) >= 1


def test_shares_are_kept_in_every_class():
    y = labels(500, 200, 100)
    places = split({"train": y}, val=0.1, test=0.2)
    assert counts(y, places["test"]) == [100, 40, 20]
    assert counts(y, places["val"]) == [40, 16, 8]


def test_the_same_seed_splits_alike_and_another_does_not():
    y = labels(50, 50, 50)
    first = split({"train": y}, 3)
    again = split({"train": y}, 3)
    other = split({"train": y}, 4)
    assert torch.equal(first["val"].rows, again["val"].rows)
    assert not torch.equal(first["val"].rows, other["val"].rows)


def test_parts_of_the_user_are_kept():
    parts = {"train": labels(9, 9, 9), "val": labels(1, 0, 2), "test": labels(4, 4, 4)}
    places = split(parts)
    assert [at.part for at in places.values()] == ["train", "val", "test"]
    for name, at in places.items():
        assert torch.equal(at.rows, torch.arange(len(parts[name])))


def test_limit_cuts_train_and_val_together():
    y = labels(500, 300, 200)
    places = split({"train": y, "test": labels(2, 2, 2)}, limit=100, val=0.2)
    assert counts(y, places["train"]) == [40, 24, 16]
    assert counts(y, places["val"]) == [10, 6, 4]
    assert len(places["test"].rows) == 6


def test_labels_turn_the_rest_of_train_into_pool():
    y = labels(500, 300, 200)
    whole = split({"train": y, "test": y})
    places = split({"train": y, "test": y}, labels=30)
    assert counts(y, places["train"]) == [15, 9, 6]
    assert torch.equal(places["val"].rows, whole["val"].rows)
    both = torch.cat([places["train"].rows, places["pool"].rows]).sort().values
    assert torch.equal(both, whole["train"].rows)


def test_rows_without_label_join_the_pool():
    y = labels(30, 30, 30)
    y[::9] = UNLABELED
    places = split({"train": y}, labels=9)
    assert torch.isin(torch.arange(0, 90, 9), places["pool"].rows).all()
    assert all((y[at.rows] >= 0).all() for name, at in places.items() if name != "pool")
    assert len(torch.cat([at.rows for at in places.values()]).unique()) == 90


@pytest.mark.parametrize(
    ("sizes", "options", "words"),
    [
        ((5, 1, 5), {}, "class 'b' has 1 training sample, but holding out test and val .* 3"),
        ((5, 5, 2), {}, "class 'c' has 2 training samples, .* at least 3"),
        ((9, 9, 9), {"limit": 5}, "data.limit is 5, but 3 classes need at least 6"),
        ((9, 9, 9), {"labels": 2}, r"data.labels is 2, but 3 classes need at least 3"),
    ],
)
def test_too_few_samples_are_refused(sizes, options, words):
    with pytest.raises(InputError, match=words):
        split({"train": labels(*sizes)}, **options)


def test_a_class_of_one_sample_stands_where_nothing_is_held_out():
    y = labels(5, 1, 5)
    assert len(split({"train": y, "val": y, "test": y})["train"].rows) == 11


@given(
    st.lists(st.integers(2, 50), min_size=1, max_size=8),
    st.floats(0, 1),
    st.integers(0, 1),
    st.integers(0, 1),
)
def test_counts_add_up_within_their_bounds(sizes, share, least, leave):
    low, high = least * len(sizes), sum(sizes) - leave * len(sizes)
    total = round(low + share * (high - low))
    found = proportional(sizes, total, least=least, leave=leave)
    assert sum(found) == total
    assert all(least <= one <= size - leave for one, size in zip(found, sizes, strict=True))
