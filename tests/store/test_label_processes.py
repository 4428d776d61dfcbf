"""Labelling in real processes: killed, interrupted, shared by ranks; always the same bytes."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest
from label_process import content, finish, flags, make_teacher, start, torchrun

from limbeck.cli.main import main


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_teacher(tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="module")
def whole(teacher: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store that nobody interrupted."""
    out = tmp_path_factory.mktemp("whole") / "store"
    finish(start(*flags(teacher, out)))
    return out


def pieces(out: Path) -> int:
    return len(list((out / "pieces").glob("*.safetensors")))


def stop_at(words: list[str], out: Path, piece: int, how: int) -> None:
    process = start(*words)
    while pieces(out) < piece and process.poll() is None:
        time.sleep(0.001)
    time.sleep(random.random() * 0.02)
    process.send_signal(how)
    error = process.communicate(timeout=60)[1]
    assert "Traceback" not in error
    if how == signal.SIGINT and process.returncode == 130:
        assert f"limbeck label --resume {out}" in error


def test_killed_and_interrupted_and_resumed(teacher: str, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "store"
    stop_at(flags(teacher, out), out, 20, signal.SIGKILL)
    begun = pieces(out)
    assert begun >= 20
    stop_at(["label", "--resume", str(out)], out, begun + 20, signal.SIGINT)
    finish(start("label", "--resume", str(out)))
    assert content(out) == content(whole)


@pytest.mark.slow
def test_killed_at_twenty_instants(teacher: str, whole: Path, tmp_path: Path) -> None:
    chosen = random.Random(5)
    for trial in range(20):
        out = tmp_path / f"store-{trial}"
        stop_at(flags(teacher, out), out, chosen.randrange(0, 110), signal.SIGKILL)
        if (out / "recipe.yaml").exists():
            finish(start("label", "--resume", str(out)))
        else:
            finish(start(*flags(teacher, out)))
        assert content(out) == content(whole), trial


@pytest.mark.slow
def test_two_ranks_write_what_one_does_and_one_goes_on(
    teacher: str, whole: Path, tmp_path: Path
) -> None:
    torchrun(2, *flags(teacher, tmp_path / "two"))
    assert content(tmp_path / "two") == content(whole)


def test_the_command_makes_a_store_that_verifies_and_trains(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["store", "verify", str(whole)]) == 0
    said = capsys.readouterr().out
    assert "outputs run again" in said
    assert "are what was written" in said
    run = tmp_path / "run"
    words = ["--student", "limbeck:mlp?widths=8", "--data", "digits", "--training.epochs", "1"]
    assert main(["distill", *words, "--teacher", f"store:{whole}", "--out", str(run)]) == 0
    assert (run / "report.html").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--views", "0"], "--views is 0"),
        (["--views", "2", "--training.views", "[]"], "name augmentations"),
        (["--top-k", "0"], "top_k is 0"),
        (["--splits", "pool"], "has no split 'pool'"),
        (["--from", "nowhere.npz"], "no file nowhere.npz"),
    ],
)
def test_bad_input_is_one_sentence(
    teacher: str, words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*flags(teacher, tmp_path / "s"), *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_augmentations_without_a_number_of_views_are_refused(
    teacher: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["label", "--teacher", teacher, "--data", "digits", "--training.views", "crop"]
    assert main(words) == 2
    assert "add --views N" in capsys.readouterr().err


def test_a_store_that_is_not_there_or_not_finished(
    teacher: str, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "store"
    stop_at(flags(teacher, out), out, 3, signal.SIGKILL)
    student = ["--student", "limbeck:mlp?widths=8", "--data", "digits"]
    for words, said in (
        (["store", "info", str(tmp_path)], "there is no store"),
        (["store", "verify", str(out)], "incomplete"),
        (["distill", *student, "--teacher", f"store:{out}"], "incomplete"),
        (["train", "--student", f"store:{whole}", "--data", "digits"], "only be a teacher"),
    ):
        assert main(words) == 2
        assert said in capsys.readouterr().err
