"""Spellings of a recipe that mean the same."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from limbeck.recipe.spec import Recipe


def test_one_item_stands_for_a_list_of_one():
    short = Recipe.model_validate(
        {"teacher": "a", "training": {"views": "flip"}, "input": {"mean": 0.5, "std": 1}}
    )
    long = Recipe.model_validate(
        {
            "teachers": [{"model": "a"}],
            "training": {"views": ["flip"]},
            "input": {"mean": [0.5], "std": [1.0]},
        }
    )
    assert short == long


def test_a_name_stands_for_a_mapping():
    short = Recipe.model_validate({"data": "digits", "training": {"schedule": "constant"}})
    assert short.data.source == "digits"
    assert short.training.schedule.name == "constant"


def test_teacher_and_teachers_exclude_each_other():
    with pytest.raises(ValidationError, match="either 'teacher' or 'teachers'"):
        Recipe.model_validate({"teacher": "a", "teachers": ["b"]})
