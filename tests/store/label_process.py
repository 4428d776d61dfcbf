"""`limbeck label` in processes of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

from limbeck.engine.checkpoint import save_tensors
from limbeck.models.source import build_model
from processes import heed_interrupts

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def make_teacher(folder: Path) -> str:
    """A teacher for the digits that takes a second for all of them."""
    torch.manual_seed(0)
    model = build_model("limbeck:convnet?widths=32,32", shape=(1, 8, 8), classes=10)
    save_tensors(folder / "teacher.safetensors", model.state_dict(), {})
    return f"limbeck:convnet?widths=32,32@{folder / 'teacher.safetensors'}"


def flags(teacher: str, out: Path) -> list[str]:
    views = ["--views", "4", "--training.views", "crop", "--top-k", "3", "--batch", "16"]
    return ["label", "--teacher", teacher, "--data", "digits", *views, "--out", str(out)]


def start(*words: str) -> subprocess.Popen[str]:
    """The command, with pieces of single batches, so that there is something to interrupt."""
    code = (
        "import sys; from limbeck.store import writer; writer.PIECE_SECONDS = 0.0; "
        "from limbeck.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, *words],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    )


def finish(process: subprocess.Popen[str], status: int = 0) -> str:
    out, error = process.communicate(timeout=120)
    assert process.returncode == status, error + out
    assert "Traceback" not in error
    return error + out


def torchrun(ranks: int, *words: str) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", str(ranks), "-m", "limbeck", *words),
        ],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr


def content(store: Path) -> dict[str, bytes]:
    """Every file that outlives the labelling."""
    names = [*store.glob("*.safetensors"), store / "manifest.json"]
    return {path.name: path.read_bytes() for path in names}
