"""Every piece of code in the README and the documentation does what the page says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from snippets import Runner, blocks, forget_modules

from limbeck.methods.registry import METHODS, all_methods

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUN = [page for page in PAGES if any(block.reason is None for block in blocks(page))]
SLOW = set(METHODS) - {"kd", "fitnet", "factor_transfer"}  # their pages run where time is


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder that modules can be imported from."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(threads)
    forget_modules(tmp_path)
    all_methods.cache_clear()


def _case(page: Path) -> Any:
    slow = page.parent.name == "methods" and page.stem in SLOW
    marks = [pytest.mark.slow] if slow else []
    return pytest.param(page, marks=marks, id=str(page.relative_to(ROOT)))


@pytest.mark.parametrize("page", [_case(page) for page in RUN])
def test_code_of_a_page_runs(page: Path, folder: Path) -> None:
    runner = Runner(page)
    for block in blocks(page):
        runner.run(block)


def test_what_a_page_says_fails_is_seen(folder: Path) -> None:
    page = folder / "page.md"
    page.write_text("```python\nassert False, 'seen'\n```\n")
    with pytest.raises(AssertionError, match="seen"):
        Runner(page).run(blocks(page)[0])
    page.write_text("```bash\nlimbeck distill --teacher nothing\n```\n")
    with pytest.raises(AssertionError, match="exit status 2"):
        Runner(page).run(blocks(page)[0])
