"""Who imports whom: every room of the package imports only from below."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "limbeck"

_BASE = {"errors"}
_PIECES = _BASE | {"recipe", "functional"}
_SCIENCE = _PIECES | {"data", "nn", "models"}
_MACHINE = _SCIENCE | {"students", "tasks", "store", "teachers", "methods"}

ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "functional": _BASE,
    "recipe": _BASE,
    "data": _BASE | {"recipe"},
    "nn": _PIECES | {"data"},
    "theory": _PIECES | {"data", "nn"},
    "students": _PIECES | {"data", "nn", "theory"},
    "models": _BASE | {"students"},
    "tasks": _SCIENCE,
    "store": _PIECES | {"data"},
    "diagnosis": _PIECES | {"data", "nn", "theory", "students"},
    "teachers": _SCIENCE | {"store"},
    "methods": _SCIENCE | {"students", "tasks"},
    "engine": _MACHINE,
    "exporters": _SCIENCE | {"engine"},
    "report": _BASE | {"recipe", "tasks"},
    "runs": _MACHINE | {"theory", "diagnosis", "engine", "exporters", "report"},
    "reproduce": _MACHINE | {"theory", "engine", "exporters", "report", "runs"},
    "cli": _MACHINE | {"engine", "exporters", "report", "runs", "reproduce"},
}
"""What each room may import at run time, besides itself."""


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[str]:
    """Every `limbeck` module that is imported, within functions too, but not for types alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("limbeck"))
        elif isinstance(node, ast.ImportFrom) and node.module == "limbeck":
            yield from (f"limbeck.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("limbeck."):
            yield node.module or ""
        else:
            yield from imports(node)


SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_from_below(path: Path) -> None:
    room = room_of(path)
    assert room in ALLOWED, f"give the room {room!r} its floor here and in docs/architecture.md"
    for module in imports(ast.parse(path.read_text())):
        other = module.split(".")[1]
        if other not in ("__version__", room):
            assert other in ALLOWED[room], f"{room} must not import {module}"


def test_every_room_says_what_lives_there() -> None:
    page = (PACKAGE.parents[1] / "docs" / "architecture.md").read_text()
    for folder in PACKAGE.iterdir():
        if (folder / "__init__.py").exists():
            assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text())), folder.name
            assert f"`{folder.name}`" in page, f"{folder.name} is not in docs/architecture.md"


def test_the_engine_knows_no_method_by_name() -> None:
    for path in (PACKAGE / "engine").glob("*.py"):
        found = [name for name in imports(ast.parse(path.read_text())) if ".methods" in name]
        assert set(found) <= {"limbeck.methods.base"}, path.name


def test_the_command_answers_before_torch_is_loaded() -> None:
    code = (
        "import sys, limbeck, limbeck.cli.main, limbeck.recipe.spec, limbeck.recipe.override, "
        "limbeck.recipe.yaml, limbeck.models.ref, limbeck.methods.registry\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_import_from_above_is_seen() -> None:
    tree = ast.parse("def f():\n    from limbeck.cli import say\nfrom limbeck import runs")
    assert list(imports(tree)) == ["limbeck.cli", "limbeck.runs"]
    hidden = ast.parse("if TYPE_CHECKING:\n    from limbeck.engine.engine import Engine")
    assert list(imports(hidden)) == []
