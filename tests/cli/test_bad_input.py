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
    "label below zero": (f"{TRAIN} --data negative.npz", "-1"),
    "NaN": (f"{TRAIN} --data nan.npz", "NaN or infinite values, the first at index 5"),
    "other classes": (
        "distill --student limbeck:mlp --teacher teacher --data four.npz --out refused",
        "the teacher 'teacher' gives outputs of shape (3,), but the data has 4 classes",
    ),
    "wrong tap": (f"{DISTILL} --teacher.taps layer9", "the teacher has no module 'layer9' to tap"),
    "wrong pair of taps": (
        f"{DISTILL} --method fitnet --method.taps layer9:layer1",
        "the student has no module 'layer9' to tap, did you mean 'layer1'? (it has: flatten, "
        "layer1, layer1.0, layer1.1, linear, ...); `limbeck taps MODEL` lists them all",
    ),
    "features that are no tensor": (
        "distill --student mine:named --teacher teacher --data points.npz --out refused "
        "--method fitnet --method.taps 0:layer1",
        "the tap '0' of the student gives dict, not a tensor; tap one of its sub-modules",
    ),
    "temperature of zero": (
        f"{DISTILL} --method.temperature 0",
        "method.temperature: input should be greater than 0, got 0",
    ),
    "one temperature of zero": (
        f"{DISTILL} --method mlkd --method.temperatures [2,0]",
        "temperature is 0.0: it must be above 0",
    ),
    "negative weight": (
        f"{DISTILL} --method.weight -1",
        "method.weight: input should be greater than or equal to 0, got -1",
    ),
    "negative weight within": (
        f"{DISTILL} --method dkd --method.beta -1",
        "beta is -1.0: it must be 0 or more",
    ),
    "empty batch": (
        f"{DISTILL} --training.batch 0",
        "training.batch: input should be greater than or equal to 1, got 0",
    ),
    "resumed otherwise": (
        "train --resume teacher --training.epochs 50",
        "the run in teacher has training.epochs 1, and --resume goes on with it as it is, not "
        "with 50",
    ),
    "resumed with another student": (
        "train --resume teacher --student limbeck:mlp?widths=9",
        "has student limbeck:mlp?widths=8, and --resume",
    ),
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
QUICK = (
    "missing file",
    "unreadable image",
    "other classes",
    "unknown key",
    "no number",
    "resumed otherwise",
)


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
