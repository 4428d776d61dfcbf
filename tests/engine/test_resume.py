"""A run that is killed and resumed leaves the same bits as one that never stopped."""

from __future__ import annotations

import random
import re
import shlex
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from conftest import Command

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


@dataclass
class Reference:
    folder: Path
    seconds: float


@pytest.fixture(scope="module")
def reference(
    limbeck: Command, teacher: str, tmp_path_factory: pytest.TempPathFactory
) -> Reference:
    """The run that nobody stops, and how long its training takes."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    process = limbeck.start(*flags(teacher, folder))
    wait_for_run(folder)
    start = time.monotonic()
    _, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    return Reference(folder, time.monotonic() - start)


def wait_for_run(folder: Path) -> None:
    limit = time.monotonic() + 60
    while not (folder / "metrics.jsonl").exists():
        assert time.monotonic() < limit
        time.sleep(0.01)


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


def kill_after(limbeck: Command, words: list[str], folder: Path, seconds: float) -> None:
    """Start the command and kill it some time after its training has begun."""
    process = limbeck.start(*words)
    wait_for_run(folder)
    time.sleep(seconds)
    process.kill()
    _, error = process.communicate()
    assert process.returncode in (-signal.SIGKILL, 0), error


def interrupt(limbeck: Command, words: list[str], folder: Path) -> list[str]:
    """Press Ctrl-C while the command trains; the words that it says to go on with."""
    checkpoint = folder / "checkpoints" / "last.safetensors"
    stood = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
    process = limbeck.start(*words)
    while process.poll() is None:
        if checkpoint.exists() and checkpoint.stat().st_mtime_ns != stood:
            break
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "Traceback" not in error
    command = re.search(r"^ +limbeck (distill --resume .*)$", error, re.MULTILINE)
    assert command is not None, error
    return shlex.split(command[1])


def test_the_reference_trains_what_it_says(reference: Reference) -> None:
    tensors, facts = load_tensors(reference.folder / "checkpoints" / "last.safetensors")
    assert {key.partition(".")[0] for key in tensors} == {"method", "ema", "optimizer"}
    assert any(key.startswith("optimizer.critic.0.exp_avg") for key in tensors)
    assert any(key.startswith("optimizer.student.0.momentum") for key in tensors)
    assert tensors["method.seen"] > 0
    assert facts["best_epoch"] > 0


def test_killed_twice_interrupted_and_resumed(
    limbeck: Command, teacher: str, reference: Reference, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    resume = ["distill", "--resume", str(folder)]
    kill_after(limbeck, flags(teacher, folder), folder, 0.3 * reference.seconds)
    kill_after(limbeck, resume, folder, 0.6 * reference.seconds)
    said = interrupt(limbeck, resume, folder)
    assert said == resume
    limbeck(*said)
    assert_same(folder, reference.folder)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(20))
def test_killed_at_a_random_instant(
    limbeck: Command, teacher: str, reference: Reference, tmp_path: Path, number: int
) -> None:
    folder = tmp_path / "run"
    instant = random.Random(number).random() * reference.seconds
    kill_after(limbeck, flags(teacher, folder), folder, instant)
    limbeck("distill", "--resume", str(folder))
    assert_same(folder, reference.folder)
