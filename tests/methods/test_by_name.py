"""Methods on features by their names, through the front door: built, trained, checkpointed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.methods.networks import Pair

import limbeck
from limbeck.data.base import Data
from limbeck.data.load import load_data
from limbeck.engine.checkpoint import load_tensors
from limbeck.methods.registry import METHODS, load_target
from limbeck.recipe.spec import DataSpec

NAMES = [
    name
    for name, entry in METHODS.items()
    if entry.target.startswith("limbeck.methods.") and "features" in entry.needs
] + ["ofa", "ctkd", "pskd", "dml"]
PLAIN_STUDENT = [name for name in NAMES if name != "simkd"]
SMALL = {"crd": {"negatives": 16}, "factor_transfer": {"prepare": {"epochs": 0}}}


@pytest.fixture(scope="module")
def data() -> Data:
    return load_data(DataSpec(source="digits", limit=160))


def distill(pair: Pair, data: Data, name: str, out: Path, **more: object) -> limbeck.Result:
    method = {"name": name, **SMALL.get(name, {})}
    training = {"epochs": 2, "batch": 32, "device": "cpu", "optimizer": {"lr": 0.001}}
    return limbeck.distill(
        "limbeck:convnet?widths=4,6",
        pair.teacher,
        data,
        method=method,
        training=training,
        out=out,
        progress=False,
        **more,
    )


@pytest.mark.parametrize("name", NAMES)
def test_name_and_class_agree(name: str) -> None:
    assert load_target(METHODS[name]).Spec.model_fields["name"].default == name


@pytest.mark.parametrize("name", PLAIN_STUDENT)
def test_runs_by_name_and_delivers_the_plain_student(
    pair: Pair, data: Data, name: str, tmp_path: Path
) -> None:
    result = distill(pair, data, name, tmp_path / "run")
    assert 0 <= result.metrics["test.accuracy"] <= 1
    again = limbeck.load(result.run)
    x = data.test.x[:8].float()
    assert torch.equal(again(x), result.student(x))


def test_state_of_a_term_lies_in_the_checkpoint(pair: Pair, data: Data, tmp_path: Path) -> None:
    result = distill(pair, data, "crd", tmp_path / "run")
    tensors, _ = load_tensors(result.run / "checkpoints" / "last.safetensors")
    assert any(key.endswith("memory.student_rows") for key in tensors)


def test_terms_on_features_add_up(pair: Pair, data: Data, tmp_path: Path) -> None:
    result = limbeck.distill(
        "limbeck:convnet?widths=4,6",
        pair.teacher,
        data,
        method=["labels", {"name": "kd", "weight": 0.9}, {"name": "at", "balance": True}, "rkd"],
        training={"epochs": 1, "batch": 32, "device": "cpu"},
        out=tmp_path / "run",
        progress=False,
    )
    line = (result.run / "metrics.jsonl").read_text().splitlines()[0]
    assert '"at"' in line
    assert '"rkd"' in line
