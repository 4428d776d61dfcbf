"""What a run does when numbers or the disk fail it: the last good state survives."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from limbeck_process import Command
from tiny_engine import arrays, make_engine, network, parameters, settings

import limbeck as lb
from limbeck.cli.main import main
from limbeck.engine.checkpoint import load_tensors
from limbeck.recipe.folder import RunFolder


def distill(folder: Path, epochs: int, **method: object) -> lb.Result:
    return lb.distill(
        network,
        network(9, 8),
        arrays(),
        method={"name": "twin", **method},
        training=settings(epochs=epochs),
        out=folder,
        progress=False,
    )


@pytest.mark.parametrize(
    ("bad", "named"),
    [("term", "the loss term 'imitate'"), ("gradient", "a gradient"), ("applied", "a gradient")],
)
def test_a_run_keeps_its_last_good_checkpoint(
    installed: None, tmp_path: Path, bad: str, named: str
) -> None:
    good = distill(tmp_path / "good", epochs=1)
    with pytest.raises(lb.RunError, match=named) as caught:
        distill(tmp_path / "bad", epochs=3, bad_step=6, bad=bad)
    assert " at step 7 (learning rate 0.05); no update was made" in str(caught.value)
    kept, facts = load_tensors(tmp_path / "bad" / "checkpoints" / "last.safetensors")
    assert facts["step"] == 6
    expected = good.student.state_dict()
    assert all(torch.equal(kept[f"method.student.{key}"], expected[key]) for key in expected)
    assert "NaN" not in (tmp_path / "bad" / "metrics.jsonl").read_text()


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("bad", ["term", "gradient"])
def test_no_update_from_the_first_step_that_is_not_finite(
    installed: None, bad: str, optimizer: str, accumulate: int
) -> None:
    engine = make_engine(
        {"name": "twin", "bad_step": 2, "bad": bad},
        optimizer={"name": optimizer},
        accumulate=accumulate,
        clip=1.0,
    )
    trail = []
    for _ in range(5):
        engine.step()
        trail.append(parameters(engine)[:4])  # the student's
    moved = [
        any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
        for before, after in pairwise(trail)
    ]
    assert moved == [True, False, False, False]
    with pytest.raises(lb.RunError, match="at step 3 "):
        engine.flush()


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The one sentence of a command that ends with this status."""

    def run(*words: str, status: int) -> str:
        assert main(words) == status
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        return said

    return run


def test_a_folder_that_is_taken_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    words = ["train", "--student", "limbeck:mlp?widths=8", "--data", "digits", "--out"]
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "recipe.yaml").write_text("student: limbeck:mlp\n")
    said = refused(*words, str(tmp_path / "done"), status=2)
    assert f"go on with it by --resume {tmp_path / 'done'}" in said
    holder = RunFolder(tmp_path / "busy")
    said = refused(*words, str(tmp_path / "busy"), status=2)
    assert "another process is writing" in said
    holder.close()


def test_the_command_says_so_and_ends_with_1(
    installed: None, refused: Callable[..., str], teacher: str, tmp_path: Path
) -> None:
    words = ["distill", "--student", "limbeck:mlp?widths=8", "--teacher", teacher]
    words += ["--data", "digits", "--data.limit", "200", "--training.epochs", "2"]
    words += ["--method", "twin", "--method.bad_step", "4", "--out", str(tmp_path / "run")]
    said = refused(*words, "--training.batch", "32", "--device", "cpu", status=1)
    assert "'imitate' was not finite at step 5" in said


def test_a_full_disk_leaves_the_checkpoint_that_stood(
    limbeck: Command, teacher: str, tmp_path: Path
) -> None:
    """While the run trains, the system starts to refuse files as large as its checkpoints."""
    run = tmp_path / "run"
    checkpoint = run / "checkpoints" / "last.safetensors"
    words = ["--student", "limbeck:mlp?widths=64", "--teacher", teacher, "--out", str(run)]
    words += ["--data", "digits", "--data.limit", "200", "--training.batch", "32"]
    process = limbeck.start("distill", *words, "--training.epochs", "2000", "--device", "cpu")
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.005)
    most = checkpoint.stat().st_size - 1000
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (most, most))
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said.count("\n") == 1
    assert "cannot write" in said
    assert "File too large" in said
    tensors, facts = load_tensors(checkpoint)
    assert facts["step"] > 0
    assert all(value.isfinite().all() for value in tensors.values())
    assert not list(run.rglob(".*.part"))
