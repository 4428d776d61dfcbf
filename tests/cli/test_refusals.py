"""Bad input whose refusal does not need a process of its own to be seen."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import limbeck
from limbeck.errors import InputError

TRAIN = "train --student limbeck:mlp --data points.npz --out refused"
DISTILL = "distill --teacher teacher --data points.npz --out refused"
COMPARE = "compare --student limbeck:mlp --teacher teacher --data points.npz --out refused"

CASES = {
    "no verb": ("", "name a verb"),
    "unknown verb": ("trian", "unknown verb 'trian', did you mean 'train'?"),
    "unknown flag": ("train --studnt x", "unknown flag --studnt, did you mean 'student'?"),
    "flag without value": ("train --seed", "argument --seed: expected one argument"),
    "key without value": ("train --student", "--student needs a value"),
    "missing argument": ("evaluate", "the following arguments are required"),
    "key of no use": ("evaluate teacher --training.epochs 3", "does not read --training.epochs"),
    "flag of no use": ("evaluate teacher --seed 3", "evaluate does not take --seed 3"),
    "no student": ("train --data points.npz", "name a student with --student"),
    "unknown model": ("train --student limbeck:mpl", "limbeck:mpl, did you mean 'mlp'?"),
    "unknown source": ("train --student nowhere:net", "unknown source 'nowhere'"),
    "no such function": ("train --student mine:nett --data points.npz", "has no 'nett'"),
    "function that fails": (
        "train --student mine:broken --data points.npz",
        "RuntimeError: no luck",
    ),
    "wrong kind of model": (f"{TRAIN} --student limbeck:resnet20", "takes images of shape"),
    "unknown method": (f"{DISTILL} --student limbeck:mlp --method dkb", "did you mean 'dkd'?"),
    "unknown option": (f"{DISTILL} --student limbeck:mlp --method.temprature 2", "'temperature'?"),
    "no teacher": (
        "distill --student limbeck:mlp --data points.npz --out refused",
        "needs a teacher",
    ),
    "untrained teacher": (
        f"{DISTILL} --student limbeck:mlp --teacher limbeck:mlp",
        "has no weights",
    ),
    "teacher to train": (f"{TRAIN} --teacher teacher", "train works without a teacher"),
    "method to train": (f"{TRAIN} --method kd", "train has no method"),
    "unknown metric": (f"{TRAIN} --training.metric acuracy", "did you mean 'accuracy'?"),
    "failing metric": (
        f"{TRAIN} --training.metric mine:failing",
        "ZeroDivisionError: nothing there",
    ),
    "unknown task": (f"{TRAIN} --task clasification", "did you mean 'classification'?"),
    "no device": (f"{TRAIN} --device tpu", "'tpu' is no device"),
    "fp16": (f"{TRAIN} --precision fp16", "take bf16"),
    "unknown view": (f"{TRAIN} --training.views noize", "did you mean 'noise'?"),
    "view of another kind": (f"{TRAIN} --training.views flip", "does not fit data of kind 'array'"),
    "class weights": (f"{TRAIN} --training.class_weights 1 2", "2 weights for 3 classes"),
    "uneven share": (f"{TRAIN} --training.batch 5 --training.accumulate 4", "a multiple of 4"),
    "label column": ("train --student limbeck:mlp --data table.csv --data.label lable", "'label'?"),
    "unknown data": ("train --student limbeck:mlp --data fashion-mnits", "'fashion-mnist'?"),
    "no recipe": ("distill nowhere.yaml", "cannot read the recipe nowhere.yaml"),
    "arm's method": (f"{COMPARE} --compare.arms.a.method dkb", "arm 'a': unknown method 'dkb'"),
    "arm's student": (
        f"{COMPARE} --compare.arms.a.student limbeck:vgg8",
        "arm 'a': 'limbeck:vgg8'",
    ),
    "one seed": (f"{COMPARE} --compare.seeds 1", "compare.seeds"),
    "no comparison": ("compare --student limbeck:mlp --data points.npz", "needs a teacher"),
    "no run": ("evaluate nowhere", "there is no card at 'nowhere'"),
    "no run to resume": ("train --resume nowhere", "there is no run to resume in nowhere"),
    "evaluate without labels": ("evaluate teacher --data new.npz", "has no array 'y'"),
    "evaluate other classes": ("evaluate teacher --data digits", "but the student knows 0, 1, 2"),
    "predict to nowhere": ("predict teacher new.npz", "--out FILE with .csv, .jsonl, .npz"),
    "predict NaN": ("predict teacher nan.npz --out refused.csv", "NaN or infinite values"),
    "predict another kind": ("predict teacher images --out refused.csv", "another kind of data"),
    "predict another shape": ("predict teacher square.npz --out refused.csv", "have shape (8, 8)"),
    "unknown format": (
        "export teacher --formats gguf --out refused",
        "unknown export format 'gguf'",
    ),
    "nothing to report": ("report nowhere", "there is no folder nowhere"),
    "strange shape": ("taps limbeck:mlp --shape 3,a", "not a list of sizes"),
    "quickstart": ("quickstart --training.epochs 3", "does not read --training.epochs"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_one_sentence_and_nothing_left(inside, place, case):
    words, told = CASES[case]
    assert told in inside(words).sentence()
    assert not list(place.glob("refused*"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("studnet: limbeck:mlp", "unknown key 'studnet', did you mean 'student'?"),
        ("training: {optimizer: {rate: 1}}", "training.optimizer: unknown key 'rate'"),
        ("student: [", "the recipe it.yaml is not readable as YAML"),
        ("- student", "the recipe it.yaml must be a mapping of keys, found list"),
        ("student: !!python/object:os.system x", "the recipe it.yaml is not readable as YAML"),
        ("student: mine:net", "type it on the command line instead: --student mine:net"),
        ("student: é:net", "would run code that a recipe names"),
        ("{student: limbeck:mlp, teacher: 'mine:net?width=4'}", "would run code"),
        (
            "{student: limbeck:mlp, training: {metric: mine:recall}}",
            "--training.metric mine:recall",
        ),
        ("{student: limbeck:mlp, training: {metric: timm:create_model}}", "would run code"),
    ],
)
def test_a_recipe_file(inside, place, text, told):
    (place / "it.yaml").write_text(text)
    assert told in inside("distill it.yaml --out refused").sentence()


def test_a_label_column_with_a_colon_is_no_code(inside, place):
    (place / "it.yaml").write_text("{student: limbeck:mlp, data: {source: table.csv, label: a:b}}")
    assert "has no column 'a:b'" in inside("train it.yaml --out refused").sentence()


def test_code_typed_on_the_command_line_is_run(inside, place):
    (place / "it.yaml").write_text("{student: mine:net, data: points.npz}")
    assert inside("train it.yaml --student mine:net --dry-run").status == 0


def test_a_student_that_is_its_own_teacher():
    net = nn.Linear(4, 2)
    data = (torch.zeros(40, 4), np.arange(40) % 2)
    with pytest.raises(InputError, match="same object"):
        limbeck.distill(net, net, data)
    with pytest.raises(InputError, match="same object"):
        limbeck.distill(net, [copy.deepcopy(net), net], data)
