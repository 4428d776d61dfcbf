"""Plain words in YAML, there and back."""

from __future__ import annotations

import math

import pytest

from limbeck.errors import InputError
from limbeck.recipe.yaml import parse, read, write

WORDS = ["no", "yes", "on", "1e-3", "1e5", "12:30", "010", "0x1f", "1_000", "2026-01-02", "~",
         "null", "true", ".5", "+1", "", "a: b", "é"]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), [("1e-3", 0.001), ("1.", 1.0), ("-.5e2", -50.0),
                                             ("7", 7), ("true", True), ("~", None), ("", None),
                                             (".inf", math.inf)])  # fmt: skip
def test_numbers_and_truth_values(text, value):
    found = parse(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["no", "on", "010", "0x1f", "12:30", "1_000", "2026-01-02"])
def test_words_that_older_yaml_would_change(text):
    assert parse(text) == text


def test_what_is_written_is_read_back(tmp_path):
    value = {"words": WORDS, "small": 1e-5, "large": 1e22, "flag": True, "nothing": None}
    write(tmp_path / "it.yaml", value)
    assert read(tmp_path / "it.yaml") == value


def test_objects_are_refused():
    with pytest.raises(InputError, match="not readable as YAML"):
        parse("!!python/object/apply:os.getcwd []")
