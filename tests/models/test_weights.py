"""Files of weights: every container that people have, and every kind of damage."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from limbeck.errors import InputError
from limbeck.models.source import build_model
from limbeck.models.weights import apply_weights, load_weights, plain_tensors_only


class Touch:
    """A pickle that writes a file when it is run."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def model(classes=10, widths="4,8"):
    return build_model(f"limbeck:convnet?widths={widths}", shape=(3, 8, 8), classes=classes)


@pytest.fixture
def state():
    return model().state_dict()


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {f"module.{k}": v for k, v in s.items()}])
def test_safetensors_are_read(tmp_path, state, wrap):
    save_file(wrap(state), tmp_path / "w.safetensors")
    read = load_weights(tmp_path / "w.safetensors")
    assert read.keys() == state.keys()
    assert all(torch.equal(read[name], state[name]) for name in state)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".th"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3, "best": 0.5},
        lambda s: {"model": s},
        lambda s: {"model_state_dict": s},
        lambda s: {"net": {"state_dict": s}},
        lambda s: {"state_dict": {f"module.{name}": value for name, value in s.items()}},
        lambda s: {f"_orig_mod.{name}": value for name, value in s.items()},
    ],
)
def test_pickled_tensors_are_unwrapped(tmp_path, state, suffix, wrap):
    torch.save(wrap(state), tmp_path / f"w{suffix}")
    read = load_weights(tmp_path / f"w{suffix}")
    assert read.keys() == state.keys()
    assert all(torch.equal(read[name], state[name]) for name in state)


def save_old(content, file):
    torch.save(content, file, _use_new_zipfile_serialization=False)


def save_raw(content, file):
    file.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize("save", [torch.save, save_old, save_raw])
def test_a_pickle_that_would_run_something_is_refused_and_not_run(tmp_path, state, save):
    marker = tmp_path / "ran"
    save({"state_dict": state, "extra": Touch(marker)}, tmp_path / "w.pt")
    with pytest.raises(
        InputError, match=r"w\.pt' was refused and not run: .*safetensors"
    ) as caught:
        load_weights(tmp_path / "w.pt")
    assert not marker.exists()
    assert "\n" not in str(caught.value)


def test_a_whole_pickled_module_is_refused(tmp_path):
    torch.save(model(), tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"refused and not run.*state_dict\(\)"):
        load_weights(tmp_path / "w.pth")


def test_libraries_cannot_unpickle_either(tmp_path):
    marker = tmp_path / "ran"
    torch.save(Touch(marker), tmp_path / "w.pt")
    with plain_tensors_only(), pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "w.pt", weights_only=False)
    assert not marker.exists()
    torch.load(tmp_path / "w.pt", weights_only=False)
    assert marker.exists()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("w.safetensors", b"nonsense", "not a readable safetensors file"),
        ("w.safetensors", b"", "not a readable safetensors file"),
        ("w.pt", b"nonsense", "w.pt' was refused and not run"),
        ("w.pt", b"", "not a readable file of weights"),
        ("w.th", b"PK\x03\x04 cut short", "not a readable file of weights"),
    ],
)
def test_damaged_files_are_refused(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        load_weights(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_file_cut_short_is_refused(tmp_path, state):
    save_file(state, tmp_path / "w.safetensors")
    whole = (tmp_path / "w.safetensors").read_bytes()
    (tmp_path / "w.safetensors").write_bytes(whole[:-9])
    with pytest.raises(InputError, match="not a readable safetensors file"):
        load_weights(tmp_path / "w.safetensors")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="do not exist"):
        load_weights(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (torch.zeros(3), "holds a Tensor, not a state dict"),
        ({}, "holds an empty mapping"),
        ({"epoch": 3, "lr": 0.1, "a": 1, "b": 2}, "a mapping of epoch, lr, a and 1 more, not"),
    ],
)
def test_a_file_without_a_state_dict_is_refused(tmp_path, content, words):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(InputError, match=words):
        load_weights(tmp_path / "w.pt")


def test_weights_are_applied_and_counters_may_be_missing(state):
    target = model()
    part = {name: value for name, value in state.items() if "num_batches" not in name}
    assert len(part) < len(state)
    apply_weights(target, part, "w.pt")
    x = torch.randn(2, 3, 8, 8)
    source = model()
    source.load_state_dict(state)
    assert torch.equal(target.eval()(x), source.eval()(x))


def test_another_number_of_classes_is_named(state):
    with pytest.raises(InputError, match=r"'w\.pt'.* built for 100 classes, the file has 10"):
        apply_weights(model(classes=100), state, "w.pt")


def test_other_widths_are_no_matter_of_classes(state):
    words = r"of another shape: layer1.0.weight \(4x3x3x3, not 6x3x3x3\).* and \d+ more"
    with pytest.raises(InputError, match=words) as caught:
        apply_weights(model(widths="6,8"), state, "w.pt")
    assert "classes" not in str(caught.value)


def test_the_first_names_are_given_and_the_model_is_left_alone(state):
    bad = {f"x.{name}": value for name, value in state.items()} | {"linear.bias": torch.zeros(10)}
    target = model()
    before = target.linear.bias.clone()
    words = r"missing: layer1.0.weight, layer1.1.weight, layer1.1.bias and \d+ more; unexpected: x."
    with pytest.raises(InputError, match=words):
        apply_weights(target, bad, "w.pt")
    assert torch.equal(target.linear.bias, before)


def test_a_reference_loads_its_weights(tmp_path, state):
    save_file(state, tmp_path / "w.safetensors")
    text = f"limbeck:convnet?widths=4,8@{tmp_path / 'w.safetensors'}"
    built = build_model(text, shape=(3, 8, 8), classes=10)
    assert torch.equal(built.linear.weight, state["linear.weight"])
    with pytest.raises(InputError, match="built for 7 classes, the file has 10"):
        build_model(text, shape=(3, 8, 8), classes=7)
