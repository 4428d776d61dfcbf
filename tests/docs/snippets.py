"""The code of a documentation page: which blocks there are, and how they are run."""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from limbeck.cli.main import main

_BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>.+?) -->\n\n?)?```(?P<language>\w+)(?P<info>[^\n]*)\n"
    r"(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_TITLE = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the file it stands for, its line, and why it is not run."""

    language: str
    title: str | None
    code: str
    line: int
    reason: str | None


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text()
    found = []
    for match in _BLOCK.finditer(text):
        title = _TITLE.search(match["info"])
        line = text.count("\n", 0, match.start("code"))
        name = title[1] if title else None
        found.append(Block(match["language"], name, match["code"], line, match["reason"]))
    return found


class Runner:
    """Runs the blocks of one page in the working folder; Python blocks share their names.

    A block with a title is a file, written where the page says. `pyproject.toml` stands for an
    installed package: its entry points are made known as pip would.
    """

    def __init__(self, page: Path) -> None:
        self.page = page
        self.names: dict[str, Any] = {"__name__": "__main__"}

    def run(self, block: Block) -> None:
        if block.reason is not None:
            return
        if block.title is not None:
            Path(block.title).write_text(block.code)
            if block.title == "pyproject.toml":
                install_entry_points(Path(block.title))
        elif block.language == "python":
            # Leading newlines make a traceback name the line of the page.
            code = compile("\n" * block.line + block.code, str(self.page), "exec")
            exec(code, self.names)
        elif block.language == "bash":
            self._shell(block)
        elif block.language == "yaml":
            yaml.safe_load(block.code)

    def _shell(self, block: Block) -> None:
        for line in block.code.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if not words:
                continue
            place = f"{self.page.name}:{block.line}: {line}"
            assert words[0] == "limbeck", f"{place}: not a limbeck command; say why it is not run"
            try:
                status = main(words[1:])
            except SystemExit as stop:
                status = stop.code
            assert status in (0, None), f"{place}: exit status {status}"


def install_entry_points(project: Path) -> None:
    """What `pip install .` leaves of a package besides its modules."""
    import tomllib

    from limbeck.methods.registry import all_methods

    content = tomllib.loads(project.read_text())["project"]
    folder = Path(f"{content['name'].replace('-', '_')}-{content['version']}.dist-info")
    folder.mkdir()
    (folder / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {content['name']}\nVersion: {content['version']}\n"
    )
    lines = []
    for group, points in content["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in points.items())]
    (folder / "entry_points.txt").write_text("\n".join(lines) + "\n")
    all_methods.cache_clear()


def forget_modules(folder: Path) -> None:
    """Drop what was imported from `folder`, so that the next page imports its own."""
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]
