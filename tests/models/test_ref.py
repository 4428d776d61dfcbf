"""References to models: what they mean, and what each mistake says."""

import json
import subprocess
import sys

import pytest

from limbeck.errors import InputError
from limbeck.models.catalog import NETWORKS
from limbeck.models.ref import ModelRef, parse_ref


def test_a_reference_has_source_name_typed_options_and_weights(tmp_path):
    weights = tmp_path / "a@b?.safetensors"
    weights.touch()
    text = f"limbeck:convnet?widths=16,32&a=3&b=-1&c=1e-3&d=.5&e=true&f=false&g=relu,6@{weights}"

    ref = parse_ref(text)

    options = {"widths": [16, 32], "a": 3, "b": -1, "c": 1e-3, "d": 0.5, "e": True, "f": False}
    assert ref == ModelRef("limbeck", "convnet", options | {"g": "relu,6"}, str(weights), text)
    assert [type(ref.options[key]) for key in "abce"] == [int, int, float, bool]


@pytest.mark.parametrize(
    ("text", "source", "name"),
    [
        ("limbeck:wrn-16-2", "limbeck", "wrn-16-2"),
        ("timm:resnet18.a1_in1k", "timm", "resnet18.a1_in1k"),
        ("timm:hf-hub:timm/vit", "timm", "hf-hub:timm/vit"),
        ("torchvision:resnet18", "torchvision", "resnet18"),
        ("hf:google/bert", "hf", "google/bert"),
        ("torch.nn:Linear", "python", "torch.nn:Linear"),
    ],
)
def test_every_source_is_read(text, source, name):
    assert parse_ref(text) == ModelRef(source, name, {}, None, text)


def test_a_module_in_the_working_folder_is_a_source_and_is_not_imported(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ref_models.py").write_text("raise RuntimeError('imported')")
    assert parse_ref("ref_models:net?depth=3").source == "python"


def test_added_options_appear_in_the_text():
    ref = parse_ref("limbeck:text?width=8").with_options(vocabulary=90, width=4, x=True, y=[1, 2])
    assert ref.text == "limbeck:text?width=4&vocabulary=90&x=true&y=1,2"
    assert parse_ref(ref.text) == ref
    assert parse_ref("limbeck:text").with_options(vocabulary=9).text == "limbeck:text?vocabulary=9"


def test_added_options_stand_before_the_weights(tmp_path):
    weights = tmp_path / "t.pt"
    weights.touch()
    ref = parse_ref(f"limbeck:text@{weights}").with_options(vocabulary=9)
    assert parse_ref(ref.text) == ref


@pytest.mark.parametrize("target", ["", "card.json"])
def test_a_folder_or_its_card_is_a_run(tmp_path, target):
    (tmp_path / "card.json").write_text(json.dumps({}))
    (tmp_path / "student.safetensors").touch()
    text = str(tmp_path / target)
    assert parse_ref(text) == ModelRef("run", str(tmp_path), {}, None, text)


@pytest.mark.parametrize("missing", ["card.json", "student.safetensors"])
def test_a_folder_that_is_no_run_is_refused(tmp_path, missing):
    for name in {"card.json", "student.safetensors"} - {missing}:
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=f"holds no {missing}"):
        parse_ref(str(tmp_path))


def test_a_file_of_weights_alone_is_refused(tmp_path):
    file = tmp_path / "t.safetensors"
    file.touch()
    with pytest.raises(InputError, match=f"SOURCE:NAME@{file}"):
        parse_ref(str(file))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot read the model ''.*SOURCE:NAME"),
        ("resnet20", "cannot read the model 'resnet20', did you mean 'limbeck:resnet20'?"),
        ("runs/none", "cannot read the model 'runs/none' .*existing folder of a run"),
        (":resnet20", "cannot read the model"),
        ("limbeck:", "cannot read the model"),
        ("limbek:resnet20", "unknown source 'limbek'.* did you mean 'limbeck'?.*torchvision:NAME"),
        ("nowhere.models:net", r"unknown source 'nowhere.models'.*package.module:function"),
        ("torch.nn:Lin-ear", "unknown source 'torch.nn'"),
        ("limbeck:resnet21", "unknown network limbeck:resnet21, did you mean 'resnet.*vgg8"),
        ("limbeck:zzz", r"unknown network limbeck:zzz \(known: resnet8"),
        ("limbeck:mlp?", "cannot read the option ''"),
        ("limbeck:mlp?widths", "cannot read the option 'widths' of .*key=value"),
        ("limbeck:mlp?widths=", "cannot read the option 'widths='"),
        ("limbeck:mlp?a b=1", "cannot read the option 'a b=1'"),
        ("limbeck:mlp?a=1&a=2", "option 'a' .* twice"),
        ("limbeck:mlp@t.safetensors", "weights 't.safetensors' .* do not exist"),
        ("limbeck:mlp@", "weights '' .* must be a file that ends in one of .safetensors, .pt"),
        ("limbeck:mlp@t.pkl", "weights 't.pkl' .* must be a file that ends in"),
        ("hf:./nowhere", "model folder './nowhere' .* does not exist"),
    ],
)
def test_every_mistake_is_one_sentence(text, words):
    with pytest.raises(InputError, match=words) as caught:
        parse_ref(text)
    assert "\n" not in str(caught.value)


def test_reading_references_needs_no_torch():
    code = (
        "import sys, limbeck.models.ref as r; r.parse_ref('limbeck:resnet20'); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_catalog_names_the_reference_networks():
    depths = [f"resnet{depth}" for depth in (8, 14, 20, 32, 44, 56, 110)]
    wide = ["wrn-16-1", "wrn-16-2", "wrn-28-2", "wrn-40-1", "wrn-40-2"]
    others = (
        "resnet8x4 resnet32x4 vgg8 vgg13 mobilenetv2 shufflenetv1 shufflenetv2 mlp convnet text"
    )
    assert set(NETWORKS) == {*depths, *wide, *others.split()}
