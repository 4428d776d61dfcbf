"""Bad input through the real command: one sentence, status 2, and nothing left behind."""

from __future__ import annotations

import os
import pickle

import pytest

TRAIN = "train --student limbeck:mlp --out refused"
DISTILL = "distill --student limbeck:mlp --teacher teacher --data points.npz --out refused"

CASES = {
    "missing file": (f"{TRAIN} --data nowhere.npz", "no file or folder nowhere.npz"),
    "corrupt npz": (f"{TRAIN} --data corrupt.npz", "corrupt.npz cannot be read as .npz"),
    "pickled objects": (f"{TRAIN} --data objects.npz", "pickled Python objects"),
    "unreadable image": (f"{TRAIN} --data damaged", "05.png is not a readable image"),
    "empty split": (f"{TRAIN} --data empty.npz", "x of the test part of empty.npz is empty"),
    "one class": (f"{TRAIN} --data one-class.npz", "has 1 class (0)"),
    "label outside": (
        f"{TRAIN} --data outside.npz",
        "has label 3, but the training part ends at 2",
    ),
    "NaN": (f"{TRAIN} --data nan.npz", "NaN or infinite values, the first at index 5"),
    "other classes": (
        "distill --student limbeck:mlp --teacher teacher --data four.npz --out refused",
        "the teacher 'teacher' gives outputs of shape (3,), but the data has 4 classes",
    ),
    "wrong tap": (f"{DISTILL} --teacher.taps layer9", "the teacher has no module 'layer9' to tap"),
    "unknown key": (f"{DISTILL} --training.epoch 2", "'epoch', did you mean 'epochs'?"),
    "no number": (
        f"{DISTILL} --training.optimizer.lr fast",
        "training.optimizer.lr: input should be",
    ),
    "folder exists": (
        "train --student limbeck:mlp --data points.npz --out teacher",
        "a run stands in teacher already; go on with it by --resume teacher",
    ),
    "batch of one": (
        f"{TRAIN} --student mine:net --data points.npz --training.batch 1",
        "in batches of one (training.batch, training.accumulate), cannot take",
    ),
    "no cuda": (f"{TRAIN} --data points.npz --device cuda:9", "training.device"),
}  # fmt: skip


# A process that loads torch takes seconds where machines are busy; these few show that the
# command as a whole behaves as `main` does.
QUICK = ("missing file", "unreadable image", "other classes", "unknown key", "no number")


@pytest.mark.parametrize("case", CASES)
def test_one_sentence_and_nothing_left(inside, place, case):
    words, told = CASES[case]
    assert told in inside(words).sentence()
    assert not (place / "refused").exists()


@pytest.mark.parametrize(
    "case",
    [case if case in QUICK else pytest.param(case, marks=pytest.mark.slow) for case in CASES],
)
def test_through_the_real_command(command, place, case):
    words, told = CASES[case]
    assert told in command(words).sentence()
    assert not (place / "refused").exists()


class _Attack:
    def __reduce__(self):
        return os.mkdir, ("attacked",)


def test_a_pickle_that_is_not_plain_tensors_is_refused_and_not_run(command, place):
    (place / "attack.pt").write_bytes(pickle.dumps(_Attack()))
    words = "distill --student limbeck:mlp --teacher limbeck:mlp@attack.pt --data points.npz"
    assert "refused and not run" in command(words).sentence()
    assert not (place / "attacked").exists()


def test_an_absent_public_set_names_file_variable_and_command(command, tmp_path):
    offline = {"HF_HUB_OFFLINE": "1", "XDG_CACHE_HOME": str(tmp_path)}
    told = command(f"{TRAIN} --data sst2", **offline).sentence()
    assert "sst2.parquet" in told
    assert "export LIMBECK_DATA=FOLDER (it is not set)" in told
    assert "pip install 'limbeck[hf]'" in told
