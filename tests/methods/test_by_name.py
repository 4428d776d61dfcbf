"""Methods on features by their names, through the front door: built, trained, checkpointed."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from feature_networks import Pair

import limbeck
from limbeck.data.base import Data
from limbeck.data.load import load_data
from limbeck.engine.checkpoint import load_tensors
from limbeck.errors import InputError
from limbeck.methods.registry import METHODS, load_target
from limbeck.recipe.spec import DataSpec

NAMES = [
    name
    for name, entry in METHODS.items()
    if entry.target.startswith("limbeck.methods.") and "features" in entry.needs
] + ["ofa", "ctkd", "pskd", "dml"]
WHOLE = ["simkd", "factor_transfer", "dml"]
TERMS = [{"name": name} for name in NAMES if name not in WHOLE]
SMALL = {"crd": {"negatives": 16}, "factor_transfer": {"prepare": {"epochs": 0}}}


@pytest.fixture(scope="module")
def data() -> Data:
    return load_data(DataSpec(source="digits", limit=160))


def distill(pair: Pair, data: Data, method: object, out: Path) -> limbeck.Result:
    return limbeck.distill(
        "limbeck:convnet?widths=4,6",
        pair.teacher,
        data,
        method=method,
        training={"epochs": 1, "batch": 32, "device": "cpu", "optimizer": {"lr": 1e-4}},
        out=out,
        progress=False,
    )


@pytest.mark.parametrize("name", NAMES)
def test_name_and_class_agree(name: str) -> None:
    assert load_target(METHODS[name]).Spec.model_fields["name"].default == name


def test_all_terms_in_one_sum(pair: Pair, data: Data, tmp_path: Path) -> None:
    terms = [{**term, **SMALL.get(term["name"], {})} for term in TERMS]
    result = distill(pair, data, ["labels", *terms], tmp_path / "run")
    logged = json.loads((result.run / "metrics.jsonl").read_text().splitlines()[0])["terms"]
    assert set(logged) == {"labels", *(term["name"] for term in TERMS)}
    assert all(math.isfinite(value) for value in logged.values())
    tensors, _ = load_tensors(result.run / "checkpoints" / "last.safetensors")
    assert any(key.endswith("memory.student_rows") for key in tensors)
    again = limbeck.load(result.run)
    x = data.test.x[:8].float()
    assert torch.equal(again(x), result.student(x))


@pytest.mark.parametrize("name", ["factor_transfer", "dml"])
def test_whole_methods(pair: Pair, data: Data, name: str, tmp_path: Path) -> None:
    result = distill(pair, data, {"name": name, **SMALL.get(name, {})}, tmp_path / "run")
    again = limbeck.load(result.run)
    x = data.test.x[:8].float()
    assert torch.equal(again(x), result.student(x))


def test_a_rebuilt_student_is_loaded_with_its_module(
    pair: Pair, data: Data, tmp_path: Path
) -> None:
    result = distill(pair, data, "simkd", tmp_path / "run")
    with pytest.raises(InputError, match="built in Python"):
        limbeck.load(result.run)
    again = limbeck.load(result.run, model=result.student)
    x = data.test.x[:8].float()
    assert torch.equal(again(x), result.student(x))


def test_the_log_says_which_taps_were_chosen(pair: Pair, data: Data, tmp_path: Path) -> None:
    distill(pair, data, [{"name": "at", "weight": 1.0}, "labels"], tmp_path / "run")
    lines = (tmp_path / "run" / "log.txt").read_text().splitlines()
    told = [line.partition("at: ")[2] for line in lines if "follows teacher" in line]
    assert len(told) == 2
    assert told[0].startswith("student layer1 (4 x 4 x 4) follows teacher ")
