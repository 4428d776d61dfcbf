"""The command in real processes, with a package installed beside it that brings a method."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from limbeck_process import Command
from safetensors.torch import save_file

from limbeck.methods.registry import all_methods
from limbeck.models.source import build_model

HERE = Path(__file__).parent
TEACHER = "limbeck:mlp?widths=32"


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A teacher of digits, by name."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(TEACHER, shape=(1, 8, 8), classes=10)
    path = tmp_path_factory.mktemp("teacher") / "t.safetensors"
    save_file(model.state_dict(), path)
    return f"{TEACHER}@{path}"


@pytest.fixture(scope="session")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that, on the path, is an installed package with the method `twin`."""
    place = tmp_path_factory.mktemp("site")
    info = place / "twin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: twin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[limbeck.methods]\ntwin = twin:ENTRY\ngreedy = twin:GREEDY\n"
    )
    (place / "twin.py").write_text((HERE / "twin.py").read_text())
    return place


@pytest.fixture
def installed(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package `twin` is installed in this process too."""
    monkeypatch.syspath_prepend(str(plugin))
    all_methods.cache_clear()
    yield
    all_methods.cache_clear()


@pytest.fixture(scope="session")
def limbeck(plugin: Path) -> Command:
    return Command(plugin)
