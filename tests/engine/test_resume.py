"""A run that is killed and resumed leaves the same bits as one that never stopped."""

from __future__ import annotations

import random
import re
import shlex
import signal
import time
from pathlib import Path

import pytest
import torch
from limbeck_process import Command

from limbeck.engine.checkpoint import load_tensors

EPOCHS = 12


def flags(teacher: str, out: Path) -> list[str]:
    """Dropout, views, two roles, accumulation, clipping, average and early stopping at once."""
    text = f"""distill --student limbeck:mlp?widths=16&dropout=0.2 --teacher {teacher}
        --data digits --data.limit 400 --data.labels 200 --method twin --seed 3
        --training.epochs {EPOCHS} --training.batch 16 --training.accumulate 2
        --training.views crop flip mixup --training.ema 0.9 --training.clip 0.5
        --training.early_stop 9 --training.log_every 5 --training.optimizers.critic.name adam
        --training.optimizers.critic.lr 1e-3 --device cpu --out {out}"""
    return shlex.split(text)


@pytest.fixture(scope="module")
def reference(limbeck: Command, teacher: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody stops."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    limbeck(*flags(teacher, folder))
    return folder


def lines(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def stop_at(limbeck: Command, words: list[str], folder: Path, line: float, how: int) -> str:
    """Start the command and signal it a little after it has logged so many lines."""
    process = limbeck.start(*words)
    while lines(folder) < int(line) and process.poll() is None:
        time.sleep(0.001)
    time.sleep(line % 1 * 0.1)
    process.send_signal(how)
    _, error = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGKILL: -signal.SIGKILL, signal.SIGINT: 130}[how], error
    assert "Traceback" not in error
    return error


def assert_same(folder: Path, reference: Path) -> None:
    for name in ("metrics.jsonl", "student.safetensors"):
        assert (folder / name).read_bytes() == (reference / name).read_bytes(), name
    for name in ("last", "best"):
        path = Path("checkpoints") / f"{name}.safetensors"
        ours, facts = load_tensors(folder / path)
        theirs, expected = load_tensors(reference / path)
        assert facts == expected
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert not list(folder.rglob(".*.part"))


def test_the_reference_trains_what_it_says(reference: Path) -> None:
    tensors, facts = load_tensors(reference / "checkpoints" / "last.safetensors")
    assert {key.partition(".")[0] for key in tensors} == {"method", "ema", "optimizer"}
    assert any(key.startswith("optimizer.critic.0.exp_avg") for key in tensors)
    assert any(key.startswith("optimizer.student.0.momentum") for key in tensors)
    assert tensors["method.seen"] > 0
    assert facts["best_epoch"] > 0


def test_killed_twice_interrupted_and_resumed(
    limbeck: Command, teacher: str, reference: Path, tmp_path: Path
) -> None:
    folder, total = tmp_path / "run", lines(reference)
    resume = ["distill", "--resume", str(folder)]
    stop_at(limbeck, flags(teacher, folder), folder, 0.25 * total, signal.SIGKILL)
    stop_at(limbeck, resume, folder, 0.55 * total, signal.SIGKILL)
    said = stop_at(limbeck, resume, folder, 0.7 * total // 1, signal.SIGINT)
    command = re.search(r"^ +limbeck (distill --resume .*)$", said, re.MULTILINE)
    assert command is not None, said
    assert shlex.split(command[1]) == resume
    limbeck(*resume)
    assert_same(folder, reference)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(20))
def test_killed_at_a_random_instant(
    limbeck: Command, teacher: str, reference: Path, tmp_path: Path, number: int
) -> None:
    folder = tmp_path / "run"
    instant = random.Random(number).random() * lines(reference)
    stop_at(limbeck, flags(teacher, folder), folder, instant, signal.SIGKILL)
    # Before anything was written down there is no run yet to resume.
    begun = (folder / "recipe.yaml").exists()
    limbeck(*(["distill", "--resume", str(folder)] if begun else flags(teacher, folder)))
    assert_same(folder, reference)
