"""Models from a user's own functions, from runs, and from other libraries."""

import importlib.util
import json
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from limbeck.errors import InputError
from limbeck.models.imports import import_object, require
from limbeck.models.ref import parse_ref
from limbeck.models.source import build_model, count_parameters, load_run

USER_CODE = """
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes, in_channels=5, hidden=4):
        super().__init__()
        self.facts = (num_classes, in_channels, hidden)

def net(classes, shape, *, name="plain", **more):
    module = nn.Linear(shape[0], classes)
    module.facts = (name, more)
    return module

def nothing():
    return 3

def broken(classes):
    raise RuntimeError("no luck\\nat all")

def needy(classes, colour):
    return nn.Identity()

VALUE = 3
"""


@pytest.fixture
def user(tmp_path, monkeypatch):
    """A module `their_models` in the working folder."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "their_models.py").write_text(USER_CODE)
    yield
    sys.modules.pop("their_models", None)


def own(name, shape=(3, 8, 8), classes=7):
    return build_model(f"their_models:{name}", shape=shape, classes=classes)


@pytest.mark.usefixtures("user")
def test_a_users_function_gets_what_its_signature_asks_for():
    assert own("Net").facts == (7, 3, 4)
    assert own("Net?hidden=9&in_channels=1").facts == (7, 1, 9)
    assert own("Net", shape=(12,)).facts == (7, 5, 4)
    module = own("net?name=deep&more_of_it=1,2", shape=(12,))
    assert (module.in_features, module.out_features) == (12, 7)
    assert module.facts == ("deep", {"more_of_it": [1, 2]})


@pytest.mark.usefixtures("user")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing", "gave a int, not a torch.nn.Module"),
        ("broken", "could not be built: RuntimeError: no luck$"),
        ("needy", r"needs the option 'colour': write \?colour=VALUE"),
        ("Net?hiden=3", r"unknown option 'hiden' .* did you mean 'hidden'\? \(known: hidden\)"),
        ("VALUE", "'their_models:VALUE' is no function"),
        ("absent", r"their_models.py\) has no 'absent'"),
    ],
)
def test_what_goes_wrong_in_a_users_function_is_one_sentence(name, words):
    with pytest.raises(InputError, match=words) as caught:
        own(name)
    assert "\n" not in str(caught.value)


def test_an_import_that_fails_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "their_broken_models.py").write_text("import nowhere_at_all")
    with pytest.raises(InputError, match=r"cannot import 'their_broken_models'.*nowhere_at_all"):
        import_object("their_broken_models:net")
    with pytest.raises(InputError, match=r"write package.module:function"):
        import_object("their_broken_models")


def test_the_working_folder_is_first_only_while_a_module_is_imported(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wsgiref.py").write_text("mine = True")
    monkeypatch.delitem(sys.modules, "wsgiref", raising=False)
    assert import_object("wsgiref:mine") is True
    monkeypatch.delitem(sys.modules, "wsgiref")
    assert importlib.util.find_spec("wsgiref").origin != str(tmp_path / "wsgiref.py")
    assert sys.path[-1] == str(tmp_path)


def test_any_installed_module_is_a_source():
    model = build_model("torch.nn:Linear?in_features=3&out_features=2", shape=(3,), classes=2)
    assert isinstance(model, nn.Linear)
    assert count_parameters(model) == 8


def test_frozen_parameters_count_and_buffers_do_not():
    model = nn.BatchNorm1d(5).requires_grad_(False)
    assert count_parameters(model) == 10


def make_run(folder, source, model, shape=(1, 8, 8), classes=("a", "b", "c")):
    folder.mkdir(exist_ok=True)
    save_file(model.state_dict(), folder / "student.safetensors")
    card = {
        "model": {"source": source},
        "input": {"shape": list(shape)},
        "classes": list(classes),
    }
    (folder / "card.json").write_text(json.dumps(card))
    return folder


SOURCE = "limbeck:convnet?widths=4,8"


@pytest.mark.parametrize("weights", ["", "@gone.safetensors"])
@pytest.mark.parametrize("part", ["", "card.json"])
def test_a_run_gives_its_student_back(tmp_path, weights, part):
    model = build_model(SOURCE, shape=(1, 8, 8), classes=3).eval()
    model(torch.randn(2, 1, 8, 8))
    folder = make_run(tmp_path / "run", SOURCE + weights, model)

    again = build_model(str(folder / part), shape=(9, 9, 9), classes=99).eval()

    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(again(x), model(x))
    assert torch.equal(load_run(folder / part).eval()(x), model(x))


@pytest.mark.usefixtures("user")
def test_a_card_cannot_make_code_run(tmp_path):
    folder = make_run(tmp_path / "run", "their_models:Net", nn.Linear(1, 1))
    words = r"not run on a card's word: name the model yourself as 'their_models:Net@.*student"
    with pytest.raises(InputError, match=words):
        build_model(str(folder), shape=(1, 8, 8), classes=3)
    assert "their_models" not in sys.modules


def test_a_student_from_python_has_no_source_to_rebuild(tmp_path):
    folder = make_run(tmp_path / "run", None, nn.Linear(1, 1))
    with pytest.raises(InputError, match="was built in Python"):
        load_run(folder)


def test_a_card_that_names_a_run_is_refused(tmp_path):
    folder = make_run(tmp_path / "run", str(tmp_path / "run"), nn.Linear(1, 1))
    with pytest.raises(InputError, match="names another run"):
        load_run(folder)


def test_a_card_and_weights_that_do_not_fit_are_refused(tmp_path):
    model = build_model(SOURCE, shape=(1, 8, 8), classes=4)
    folder = make_run(tmp_path / "run", SOURCE, model)
    with pytest.raises(InputError, match=r"student.safetensors.* 3 classes, the file has 4"):
        load_run(folder)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "cannot read the card .*JSONDecodeError"),
        ("[]", "cannot read the card .*TypeError"),
        ('{"model": {}}', "cannot read the card .*KeyError: 'source'"),
        ('{"model": {"source": 3}, "input": {"shape": [1]}, "classes": []}', "source is 3"),
    ],
)
def test_a_damaged_card_is_refused(tmp_path, content, words):
    (tmp_path / "student.safetensors").touch()
    (tmp_path / "card.json").write_text(content)
    with pytest.raises(InputError, match=words):
        build_model(str(tmp_path), shape=(1,), classes=2)


def test_a_folder_without_a_card_is_no_run(tmp_path):
    with pytest.raises(InputError, match="there is no card at"):
        load_run(tmp_path)


def absent(module):
    return importlib.util.find_spec(module) is None


@pytest.mark.parametrize(
    ("source", "module"),
    [("timm", "timm"), ("torchvision", "torchvision"), ("hf", "transformers")],
)
def test_a_missing_extra_is_named(source, module):
    if not absent(module):
        pytest.skip(f"{module} is installed")
    with pytest.raises(InputError, match=rf"'{source}:some' needs {module} .*limbeck\[{module}\]"):
        build_model(f"{source}:some", shape=(3, 32, 32), classes=2)


def test_a_library_that_is_there_is_returned():
    assert require("json", extra="none", purpose="this test") is json


@pytest.mark.skipif(absent("timm"), reason="timm is not installed")
def test_timm_networks_are_built():
    model = build_model("timm:resnet18", shape=(1, 32, 32), classes=5)
    assert model(torch.randn(2, 1, 32, 32)).shape == (2, 5)
    with pytest.raises(InputError, match="could not be built"):
        build_model("timm:resnet18x", shape=(1, 32, 32), classes=5)


@pytest.mark.skipif(absent("torchvision"), reason="torchvision is not installed")
def test_torchvision_networks_are_built():
    model = build_model("torchvision:resnet18", shape=(3, 32, 32), classes=5)
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 5)
    with pytest.raises(InputError, match="3 channels, the samples have 1"):
        build_model("torchvision:resnet18", shape=(1, 32, 32), classes=5)


@pytest.mark.skipif(absent("transformers"), reason="transformers is not installed")
def test_transformers_models_are_built_from_a_folder(tmp_path):
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=30,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
    )
    BertModel(config).save_pretrained(tmp_path / "bert")
    model = build_model(f"hf:{tmp_path / 'bert'}", shape=(6,), classes=5)
    assert model(torch.randint(0, 30, (2, 6))).logits.shape == (2, 5)
    with pytest.raises(InputError, match="unknown option 'trust_remote_code'"):
        build_model(f"hf:{tmp_path / 'bert'}?trust_remote_code=true", shape=(6,), classes=5)


def test_a_parsed_reference_is_taken_too():
    ref = parse_ref("limbeck:text?width=8").with_options(vocabulary=20)
    assert build_model(ref, shape=(4,), classes=2).embedding.weight.shape == (20, 8)
