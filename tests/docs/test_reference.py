"""The generated reference pages say what the code says, and the site leads to every page."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import limbeck
from limbeck import functional
from limbeck.cli.verbs import VERBS
from limbeck.methods.build import spec_class
from limbeck.methods.registry import METHODS
from limbeck.recipe.spec import Training

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
KEYS = {"when", "cost", "note", "formula", "options", "training", "method"}  # of docs/methods.yaml


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        spec.loader.exec_module(module)
    return module


def test_generated_pages_are_up_to_date(generate: ModuleType) -> None:
    for path, text in generate.pages().items():
        assert path.read_text() == text, f"run `python docs/generate.py`: {path.name} is stale"


def test_every_loss_and_every_verb_is_in_the_reference(generate: ModuleType) -> None:
    losses = generate.losses()
    missing = [name for name in functional.__all__ if f".{name}\n" not in losses]
    assert not missing, f"give the module of {missing} a place in LOSSES of docs/generate.py"
    commands = generate.commands()
    assert all(f"## limbeck {verb}\n" in commands for verb in VERBS)


def test_every_key_of_a_recipe_is_explained(generate: ModuleType) -> None:
    for name, cls in generate.SECTIONS.items():
        unexplained = set(cls.model_fields) - set(generate.meanings(cls))
        assert not unexplained, f"{name}: {sorted(unexplained)} are not under Attributes"
    assert generate.meanings(Training)["keep"].startswith("the epoch")


def test_every_method_and_option_is_explained(generate: ModuleType) -> None:
    pages = generate.method_pages
    entries = pages.told()
    assert set(entries) == set(METHODS)
    for name, entry in entries.items():
        assert {"when", "cost"} <= set(entry) <= KEYS, name
        options = set(spec_class(name).model_fields) - {"name"}
        assert not options - set(pages.option_words(name, entry)), f"{name}: unexplained options"


def test_what_was_measured_is_on_the_pages(generate: ModuleType) -> None:
    versus = {"kd_tuned": {"difference": -0.01, "low": -0.03, "high": 0.01, "p_holm": 0.2}}
    accuracy = {"test.accuracy": {"mean": 0.9, "ci95": 0.02, "values": [0.89, 0.91]}}
    arm = {"arm": "dkd", "seeds": [0, 1], "metrics": accuracy, "versus": versus}
    size = {"parameters": 10, "latency_ms": {}}
    table = {"metric": "accuracy", "split": "test", "teacher": None, "verdict": "Even."}
    table["arms"] = [arm | size]
    pages, entries = generate.method_pages, generate.method_pages.told()
    page = pages.page("dkd", entries["dkd"], table)
    assert "90.00 ± 2.00 over 2 seeds; −1.00 points to `kd_tuned` (−3.00 to +1.00)" in page
    assert "Not yet measured" in pages.page("kd", entries["kd"], table)
    assert "**Even.**" in pages.measured_page(table)


def test_the_python_page_has_every_name_of_the_front_door() -> None:
    page = (DOCS / "reference" / "python.md").read_text()
    names = set(limbeck.__all__) - {"__version__"}
    assert not [name for name in sorted(names) if not re.search(rf"\.{name}$", page, re.M)]


def test_the_readme_has_every_verb() -> None:
    readme = (ROOT / "README.md").read_text()
    assert not [verb for verb in VERBS if f"`{verb}`" not in readme]


def test_the_navigation_leads_to_every_page() -> None:
    config = tomllib.loads((ROOT / "zensical.toml").read_text())
    linked = set(_paths(config["project"]["nav"]))
    assert linked == {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}


def test_the_site_loads_nothing_from_elsewhere() -> None:
    config = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]
    files = [*config["extra_css"], *config["extra_javascript"]]
    assert all((DOCS / file).is_file() for file in files)
    assert config["theme"]["font"] is False
    sheet = (DOCS / "assets/katex/katex.min.css").read_text()
    fonts = re.findall(r"url\(([^)]+)\)", sheet)
    assert fonts
    assert all((DOCS / "assets/katex" / font).is_file() for font in fonts)


def _paths(node: Any) -> list[str]:
    if isinstance(node, str):
        return [node]
    children = node.values() if isinstance(node, dict) else node
    return [path for child in children for path in _paths(child)]
