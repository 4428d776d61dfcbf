"""limbeck agrees with the golden vectors, and the runner notices where it does not."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the runner is a script, not a package

import run

VECTORS = Path(__file__).parent / "vectors"
COMPARED = [
    path
    for path in sorted(VECTORS.rglob("*.npz"))
    if run.method_variant(path) not in run.DEPARTURES
]
EXAMPLE = "kd.batchmean_T2.c1.npz"


@pytest.mark.parametrize("path", COMPARED, ids=lambda path: path.stem)
def test_vector(path):
    assert run.complaints(path) == []


def test_each_file_is_in_exactly_one_table():
    assert not run.CASES.keys() & run.DEPARTURES.keys()
    names = {run.method_variant(path) for path in VECTORS.glob("*.npz")}
    assert names <= run.CASES.keys() | run.DEPARTURES.keys()


@pytest.mark.parametrize(
    ("key", "change", "words"),
    [
        ("expected_loss", lambda x: x * (1 + 3e-5), "loss (float64) is off"),
        ("expected_grad_logits_s", lambda x: x + 2e-4 * abs(x).max(), "grad_logits_s (float32)"),
        ("expected_grad_logits_s", lambda x: x * np.nan, "is off by nan"),
        ("expected_grad_logits_s", lambda x: x[:1], "has shape (8, 10), stored is (1, 10)"),
        ("in_logits_t", lambda x: None, "neither in_logits_t nor hp_logits_t"),
        ("hp_T", lambda x: np.array(0.0), "temperature is 0.0"),
        ("expected_mask", lambda x: np.ones(3), "gives no mask"),
    ],
)
def test_complaint(tmp_path, key, change, words):
    with np.load(VECTORS / EXAMPLE) as file:
        arrays = dict(file)
    arrays[key] = change(arrays.get(key))
    path = tmp_path / EXAMPLE
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    assert words in "; ".join(run.complaints(path))


def test_last_line_and_exit_status(tmp_path, capsys):
    (tmp_path / "below").mkdir()
    shutil.copy(VECTORS / EXAMPLE, tmp_path / "below" / EXAMPLE)
    shutil.copy(VECTORS / "kd.elementmean_T2.c1.npz", tmp_path)
    assert run.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == "1 passed, 0 failed, 1 departures\n"

    shutil.copy(VECTORS / EXAMPLE, tmp_path / "kd.never_heard_of.c1.npz")
    (tmp_path / "dkd.megvii.c9.npz").write_bytes(b"no archive")
    assert run.main([str(tmp_path)]) == 1
    *failures, last = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in failures] == [
        "FAILED dkd.megvii.c9.npz",
        "FAILED kd.never_heard_of.c1.npz",
    ]
    assert last == "1 passed, 2 failed, 1 departures"


def test_empty_folder_fails(tmp_path, capsys):
    assert run.main([str(tmp_path)]) == 1
    assert capsys.readouterr().out.endswith("0 passed, 1 failed, 0 departures\n")


def test_family_by_stem(tmp_path, monkeypatch):
    def family(arrays):
        yield run.Close("twice", 2 * arrays["x"], arrays["twice"], 1e-9)

    monkeypatch.setattr(run, "FAMILIES", {r"double_c\d+": family})
    np.savez(tmp_path / "double_c10.npz", x=np.ones(3), twice=np.full(3, 2.0))
    np.savez(tmp_path / "double_c5.npz", x=np.ones(3), twice=np.full(3, 2.1))
    assert run.complaints(tmp_path / "double_c10.npz") == []
    assert run.complaints(tmp_path / "double_c5.npz") == [
        "twice is off by 1.00e-01, allowed 1.00e-09"
    ]
