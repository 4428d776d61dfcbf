"""What needs no torch must not wait for it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest


@pytest.fixture
def no_torch(tmp_path: Path) -> dict[str, str]:
    """An import path on which importing torch fails loudly."""
    (tmp_path / "torch.py").write_text("raise SystemError('torch was imported')")
    return {"PYTHONPATH": str(tmp_path)}


def test_torch_would_be_noticed(command, no_torch):
    assert "torch was imported" in command("doctor", **no_torch).err


@pytest.mark.parametrize("words", ["--help", "--version", "distill --help", "methods --json"])
def test_answers(command, no_torch, words):
    answer = command(words, **no_torch)
    assert (answer.status, answer.err) == (0, "")
    assert answer.out


@pytest.mark.parametrize(
    "words",
    [
        "trian",
        "distill nowhere.yaml",
        "train --training.epoch 3",
        "train --training.epochs many",
        "train --student limbeck:mpl",
        "distill --student limbeck:mlp --method kdd",
        "train --student limbeck:mlp --data nowhere.npz",
        "distill --student limbeck:mlp --teacher limbeck:mlp@nowhere.pt",
        "predict nowhere new.npz",
    ],
)
def test_refusals(command, no_torch, words):
    command(words, **no_torch).sentence()


def test_help_is_quick(command):
    seconds = []
    for _ in range(3):
        started = time.monotonic()
        command("--help")
        seconds.append(time.monotonic() - started)
    assert min(seconds) < 0.4
