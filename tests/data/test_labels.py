import numpy as np
import pytest

from limbeck.data.labels import name_labels, number_labels
from limbeck.data.splits import UNLABELED
from limbeck.errors import InputError


def numbers(*train, test=None, classes=None):
    raw = {"train": np.asarray(train[0] if len(train) == 1 else train)}
    if test is not None:
        raw["test"] = np.asarray(test)
    return number_labels(raw, classes, source="set")


def test_numbers_stay_and_name_themselves():
    labels, classes = numbers(np.array([2, 0, 1, 1], dtype=np.uint8), test=[1, 1])
    assert labels["train"].tolist() == [2, 0, 1, 1]
    assert labels["test"].tolist() == [1, 1]
    assert str(labels["train"].dtype) == "torch.int64"
    assert classes == ("0", "1", "2")


def test_whole_floats_columns_and_booleans_are_numbers():
    assert numbers(np.array([[1.0], [0.0]]))[0]["train"].tolist() == [1, 0]
    assert numbers(np.array([True, False]))[0]["train"].tolist() == [1, 0]


def test_names_are_sorted_over_the_training_part():
    labels, classes = numbers(np.array(["dog", "ant", "dog"]), test=["ant"])
    assert classes == ("ant", "dog")
    assert labels["train"].tolist() == [1, 0, 1]
    assert labels["test"].tolist() == [0]


def test_words_that_are_numbers_sort_by_value():
    assert name_labels({"train": ["10", "9", "x", "-1"]}, source="set")[1] == ("-1", "9", "10", "x")


def test_given_classes_may_lack_samples():
    assert numbers([0, 2], classes=["a", "b", "c"])[1] == ("a", "b", "c")


def test_training_rows_may_lack_a_label():
    labels, classes = name_labels({"train": ["a", None, "b", ""]}, source="set")
    assert labels["train"].tolist() == [0, UNLABELED, 1, UNLABELED]
    assert classes == ("a", "b")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: numbers([0.5, 1.0]), "float64 values that are no class numbers"),
        (lambda: numbers([np.nan, 1.0, 0.0]), "no class numbers"),
        (lambda: numbers(np.array([1j, 0])), "complex128 values"),
        (lambda: numbers([-1, 1]), "the negative label -1; number classes from 0"),
        (lambda: numbers([1, 2, 3]), "no training sample of set has label 0, though .* to 3"),
        (lambda: numbers([0, 10**12]), "has label 1, though"),
        (lambda: numbers([0, 1], test=[2]), "the test part of set has label 2, .* ends at 1"),
        (lambda: numbers([0, 3], classes=["a", "b"]), "has label 3, but names 2 classes"),
        (lambda: numbers([0, 0]), r"has 1 class \(0\), but a classifier needs at least 2"),
        (lambda: numbers(["a", "a"]), r"has 1 class \('a'\)"),
        (lambda: numbers(np.eye(3)), r"shape \(3, 3\).*take y.argmax\(1\)"),
        (lambda: numbers(["ant", "bee"], test=["been"]), "row 0 .* 'been', did you mean 'bee'"),
        (
            lambda: name_labels({"train": ["a", "b"], "val": ["a", None]}, source="set"),
            "row 1 of the val part of set has no label",
        ),
    ],
)
def test_bad_labels_are_refused(call, words):
    with pytest.raises(InputError, match=words):
        call()
