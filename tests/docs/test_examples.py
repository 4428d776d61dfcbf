"""The examples run, and their recipes are valid."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from limbeck.recipe import yaml
from limbeck.recipe.spec import Recipe

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_a_recipe_is_valid(path: Path) -> None:
    assert Recipe.model_validate(yaml.read(path)).student


@pytest.mark.slow
def test_own_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / "own_model.py"))["main"](epochs=1)
    assert list(tmp_path.glob("runs/*-shipped/student.pt2"))
    assert list(tmp_path.glob("runs/compare-*/report.html"))
