"""What the verbs do when all is well."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
import yaml

import limbeck
from limbeck.cli.arguments import make_parser, parse
from limbeck.cli.recipes import read_recipe
from limbeck.recipe.yaml import read

SMALL = "--training.epochs 1 --training.batch 16"


def objects(answer):
    """The JSON object on standard output, where the command ended well."""
    assert answer.status == 0, answer
    return json.loads(answer.out)


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_flags_win_over_the_recipe_file(inside, place):
    (place / "it.yaml").write_text(
        "{student: limbeck:mlp, teacher: teacher, data: points.npz, method: {name: dkd, beta: 2},"
        " training: {optimizer: {lr: 1e-2}}}"
    )
    words = "--method.temperature 3 --training.epochs 7 --seed 5 --precision bf16 --out nowhere"
    answer = inside(f"distill it.yaml {words} --dry-run")
    assert answer.status == 0
    resolved = yaml.safe_load(answer.out)
    assert (resolved["method"]["name"], resolved["method"]["beta"]) == ("dkd", 2)
    assert resolved["method"]["temperature"] == 3
    assert resolved["training"]["epochs"] == 7
    assert resolved["training"]["optimizer"]["lr"] == 0.01
    assert resolved["training"]["precision"] == "bf16"
    assert (resolved["seed"], resolved["out"]) == (5, "nowhere")
    assert resolved["teachers"][0]["model"] == "teacher"
    assert not (place / "nowhere").exists()
    assert objects(inside(f"distill it.yaml {words} --dry-run --json")) == resolved


def test_train_distill_and_go_on(inside, place):
    words = f"distill --student limbeck:mlp?widths=4 --teacher teacher --data points.npz {SMALL}"
    found = objects(inside(f"{words} --method.temperature 2 --out student --json"))
    assert found["out"] == "student"
    assert {"test.accuracy", "test.agreement", "best.epoch"} <= set(found["metrics"])
    assert (place / "student" / "report.html").exists()
    again = inside("distill --resume student")
    assert again.status == 0
    lines = again.out.splitlines()
    header = next(line.split() for line in lines if "metric" in line)
    assert header == ["metric", "validation", "test"]
    assert any(line.startswith("delivered: last epoch; best on validation") for line in lines)


def test_a_run_goes_on_with_flags_that_say_the_same_and_on_another_machine(inside, place):
    same = "--student limbeck:mlp?widths=8 --data points.npz --training.epochs 1 --seed 0"
    machine = "--device cpu --workers 2"
    assert inside(f"train --resume teacher {same} {machine}").status == 0
    recipe = read_recipe(*parse(make_parser(), f"train --resume teacher {machine}".split()))
    assert (recipe.out, recipe.student) == ("teacher", "limbeck:mlp?widths=8")
    assert (recipe.training.device, recipe.training.workers) == ("cpu", 2)


def test_pairs_of_taps_are_a_table_before_training(inside, place):
    words = f"distill --student limbeck:mlp?widths=4 --teacher teacher --data points.npz {SMALL}"
    said = inside(f"{words} --method fitnet --out paired")
    assert said.status == 0
    lines = [line.split() for line in said.err.splitlines()]
    header, row = (line for line in lines if line[:1] in (["term"], ["fitnet"]))
    assert header == ["term", "student", "shape", "teacher", "shape"]
    assert row == ["fitnet", "layer1", "4", "layer1", "8"]
    told = "fitnet: student layer1 (4) follows teacher layer1 (8)"
    assert told in (place / "paired" / "log.txt").read_text()
    assert "fitnet" not in inside(f"{words} --method fitnet --out quiet --json").err
    assert "layer1" in inside(f"{words} --method factor_transfer --dry-run").err


def test_evaluate(inside):
    known = objects(inside("evaluate teacher --json"))
    assert known["split"] == "test"
    assert set(known["metrics"]) == {"accuracy", "f1", "nll", "ece", "brier"}
    whole = objects(inside("evaluate teacher --data points.npz --json"))
    assert whole["split"] == "data"
    assert whole["metrics"]["nll"] != known["metrics"]["nll"]
    own = objects(inside("evaluate teacher --split val --training.metric mine:recall --json"))
    assert 0 <= own["metrics"]["mine:recall"] <= 1


def test_predict_writes_the_same_in_three_ways(inside, place):
    for suffix in ("csv", "jsonl", "npz"):
        summary = objects(inside(f"predict teacher new.npz --out p.{suffix} --json"))
        assert summary == {"out": f"p.{suffix}", "samples": 7}
    arrays = np.load(place / "p.npz")
    lines = [json.loads(line) for line in (place / "p.jsonl").read_text().splitlines()]
    table = rows(place / "p.csv")
    assert [row["label"] for row in table] == [line["label"] for line in lines]
    assert [row["label"] for row in table] == arrays["label"].tolist()
    shares = [[float(row[f"p_{name}"]) for name in arrays["classes"]] for row in table]
    np.testing.assert_allclose(shares, arrays["probabilities"], rtol=1e-6)
    np.testing.assert_allclose(arrays["probabilities"].sum(1), 1, rtol=1e-6)


def test_gray_images_without_a_channel_axis(inside, place):
    student = "--student limbeck:convnet?widths=4"
    assert inside(f"train {student} --data gray.npz {SMALL} --out gray").status == 0
    assert objects(inside("predict gray gray-new.npz --out g.npz --json"))["samples"] == 5
    (place / "small.yaml").write_text("data: {source: digits, limit: 100}")
    assert inside(f"train small.yaml {student} {SMALL} --out digits").status == 0
    assert objects(inside("predict digits square.npz --out d.npz --json"))["samples"] == 5
    arrays = np.load(place / "square.npz")
    found = limbeck.predict(place / "digits", arrays["x"].astype(np.float64))
    np.testing.assert_array_equal(found["probabilities"], np.load(place / "d.npz")["probabilities"])


def test_a_folder_of_images(inside, place):
    words = f"--student limbeck:convnet?widths=4 --data images {SMALL} --training.batch 4"
    assert inside(f"train {words} --training.views flip crop --out pictures").status == 0
    assert inside("predict pictures images --out i.csv").status == 0
    assert [row["file"] for row in rows(place / "i.csv")][:2] == ["a/00.png", "a/02.png"]
    size = "--teacher pictures --teacher.input.size 16 --teacher.input.mean 0.5 0.4 0.3"
    answer = inside(f"distill {words} {size} --teacher.classes b a --out smaller")
    assert answer.status == 0, answer
    teacher = read(place / "smaller" / "recipe.yaml")["teachers"][0]
    assert teacher["input"] == {"mean": [0.5, 0.4, 0.3], "std": None, "size": 16}
    assert teacher["classes"] == ["b", "a"]


@pytest.mark.parametrize("kind", ["table", "texts"])
def test_tables_and_texts(inside, place, kind):
    words = f"train --student limbeck:mlp?widths=8 --data {kind}.csv {SMALL}"
    assert inside(f"{words} --training.class_weights balanced --out {kind}").status == 0
    assert inside(f"predict {kind} {kind}-new.csv --out {kind}-p.csv").status == 0
    assert len(rows(place / f"{kind}-p.csv")) == 6
    assert objects(inside(f"evaluate {kind} --data {kind}.csv --json"))["split"] == "data"


def test_a_model_and_a_metric_of_the_users_own(inside, place):
    metric = "--training.metric mine:recall"
    words = f"train --student mine:net?width=4 --data points.npz {SMALL} {metric}"
    answer = inside(f"{words} --training.class_weights 1 2 3 --training.keep best --out own")
    assert answer.status == 0, answer
    assert "mine:recall" in answer.out
    assert "type it on the command line" in inside("train --resume own").sentence()
    assert inside(f"train --resume own --student mine:net?width=4 {metric}").status == 0
    weights = "mine:net?width=4@own/student.safetensors"
    assert weights in inside("evaluate own").sentence()
    assert inside("evaluate own --student mine:net?width=4").status == 0
    assert inside("predict own new.npz --student mine:net?width=4 --out own.csv").status == 0
    distill = f"distill --student mine:net --teacher {weights} --data points.npz {SMALL}"
    assert inside(f"{distill} --out pupil").status == 0


def test_what_is_known(inside):
    assert objects(inside("methods --json"))["kd"]["needs"] == "logits"
    assert objects(inside("taps limbeck:mlp?widths=8 --shape 4 --json"))["linear"] == [10]
    assert "extras" in objects(inside("doctor --json"))
    assert "report" in objects(inside("report teacher --json"))


def test_the_schema_knows_every_spelling_of_a_recipe(inside):
    schema = objects(inside("doctor --schema"))
    assert {"teacher", "teachers", "data", "training"} <= set(schema["properties"])
    assert {"type": "string"} in schema["properties"]["data"]["anyOf"]
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize("words", ["doctor", "evaluate teacher", "train --resume teacher"])
def test_nothing_wraps_at_80_columns(inside, monkeypatch, words):
    monkeypatch.setenv("COLUMNS", "80")
    assert max(len(line) for line in inside(words).out.splitlines()) <= 80


def test_compare_goes_on_where_a_run_is_missing(inside, place):
    grid = "--compare.seeds 2 --compare.temperatures 2 --compare.weights 0.5"
    words = f"--student limbeck:mlp?widths=4 --teacher teacher --data points.npz {SMALL} {grid}"
    answer = inside(f"compare {words} --compare.arms.dkd.method dkd --out arms --json")
    first = objects(answer)
    assert {row["arm"] for row in first["arms"]} == {"none", "kd_tuned", "dkd"}
    kept = (place / "arms/arms/none/seed-1/card.json").stat().st_mtime_ns
    shutil.rmtree(place / "arms/arms/dkd/seed-1")
    again = objects(inside("compare --resume arms --json"))
    assert (place / "arms/arms/none/seed-1/card.json").stat().st_mtime_ns == kept
    for before, after in zip(first["arms"], again["arms"], strict=True):
        assert after["metrics"] == before["metrics"]
    assert again["verdict"] == first["verdict"]
    assert "a comparison stands in arms already" in inside(f"compare {words} --out arms").sentence()


@pytest.mark.slow
def test_export(command, place):
    found = objects(command("export teacher --formats pt2 onnx int8 --out shipped --json"))
    assert set(found["exports"]) == {"safetensors", "pt2", "onnx", "int8"}
    assert objects(command("evaluate shipped --data points.npz --json"))["split"] == "data"
    assert "give --data" in command("evaluate shipped").sentence()
