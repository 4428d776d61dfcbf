"""Export: every file answers as the student does, or is refused."""

from __future__ import annotations

import json
import logging
import sys

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from limbeck.errors import InputError, RunError
from limbeck.exporters.student import export_student
from limbeck.nn.input import InputAdapter

CARD = {
    "limbeck": "0.1.0",
    "task": "classification",
    "model": {"source": "limbeck:convnet?widths=4,8", "parameters": 478, "bytes": 1912,
              "latency_ms": {"1": 0.1, "256": 2.0}},
    "input": {"shape": [1, 8, 8], "mean": [0.3], "std": [0.4], "size": None,
              "scale": "images in [0, 1]"},
    "classes": ["cat", "dog", "eel"],
    "teachers": [{"model": "limbeck:convnet?widths=32,64", "parameters": 19_000,
                  "metrics": {"test.accuracy": 0.97}}],
    "method": {"name": "kd", "temperature": 4.0},
    "metrics": {"test.accuracy": 0.94, "val.accuracy": 0.95},
    "data": {"source": "pets"},
    "seed": 0,
    "exports": {},
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _random(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def _initialized(model):
    """Fixed weights and batch statistics, far from the trivial ones."""
    random = torch.Generator().manual_seed(1)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=random) * 0.6 + 0.2)
    return model.eval()


def _convnet():
    body = [nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, 3)]
    return _initialized(
        nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    )


def _mlp():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 3))
    random = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=random) * 0.1
    return model.eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A convnet with its normalization in all four formats; shared, for exporters are slow."""
    folder = tmp_path_factory.mktemp("export") / "student"
    model = _convnet()
    adapter = InputAdapter((0.3,), (0.4,))
    card = export_student(
        model,
        folder,
        card=CARD,
        samples=_random(12, 1, 8, 8),
        formats=["int8", "onnx", "pt2"],
        calibration=_random(80, 1, 8, 8),
        adapter=adapter,
    )
    return folder, model, adapter, card


def test_all_files_stand_with_their_entries(exported):
    folder, _, _, card = exported
    names = {path.name for path in folder.iterdir()}
    files = {entry["file"] for entry in card["exports"].values()}
    assert names == files | {"card.json", "card.md"}
    assert json.loads((folder / "card.json").read_text()) == card
    for name in ("safetensors", "pt2", "onnx"):
        entry = card["exports"][name]
        assert entry["passed"] is True
        assert entry["samples"] == 12
        assert entry["bytes"] == (folder / entry["file"]).stat().st_size
        assert 0 <= entry["max_abs_difference"] < 1e-4
        assert set(entry["latency_ms"]) == {"1", "256"}


def test_safetensors_is_the_plain_state(exported):
    folder, model, _, _ = exported
    found = load_file(folder / "student.safetensors")
    assert set(found) == set(model.state_dict())
    assert all(torch.equal(found[key], value) for key, value in model.state_dict().items())


def test_pt2_takes_any_batch_in_the_scale_of_the_data(exported):
    folder, model, adapter, _ = exported
    answer = torch.export.load(folder / "student.pt2").module()
    for size in (1, 5, 33):
        x = _random(size, 1, 8, 8)
        assert torch.allclose(answer(x), model(adapter(x)), atol=1e-5)


def test_onnx_takes_any_batch_in_the_scale_of_the_data(exported):
    import onnxruntime

    folder, model, adapter, _ = exported
    session = onnxruntime.InferenceSession(
        folder / "student.onnx", providers=["CPUExecutionProvider"]
    )
    for size in (1, 5, 33):
        x = _random(size, 1, 8, 8)
        (found,) = session.run(["logits"], {"x": x.numpy()})
        assert torch.allclose(torch.from_numpy(found), model(adapter(x)), atol=1e-5)


def test_int8_with_convolutions_is_static_and_measured(exported):
    _, _, _, card = exported
    entry = card["exports"]["int8"]
    assert entry["kind"] == "static"
    assert entry["passed"] is None
    assert 0 <= entry["agreement"] <= 1
    assert entry["max_abs_difference"] > card["exports"]["onnx"]["max_abs_difference"]


def test_the_card_in_words(exported):
    import yaml

    folder, _, _, _ = exported
    text = (folder / "card.md").read_text()
    front = yaml.safe_load(text.split("---")[1])
    assert front["library_name"] == "limbeck"
    assert front["model-index"][0]["results"][0]["metrics"] == [{"type": "accuracy", "value": 0.94}]
    assert "distilled from limbeck:convnet?widths=32,64 by `kd` on pets" in text
    assert "| test.accuracy | 0.94 | 0.97 |" in text
    assert "mean [0.3], std [0.4]" in text
    assert "cat, dog, eel, in this order" in text
    assert "`student.int8.onnx`" in text


def test_exporters_leave_no_trace_in_logging(exported):
    assert not any(type(handler) is logging.StreamHandler for handler in logging.root.handlers)
    assert logging.root.manager.disable == 0


def test_int8_of_linear_layers_is_dynamic_and_smaller(tmp_path):
    card = export_student(_mlp(), tmp_path, card=CARD, samples=_random(16, 1, 8, 8),
                          formats=["int8"])  # fmt: skip
    entry = card["exports"]["int8"]
    assert entry["kind"] == "dynamic"
    assert entry["agreement"] > 0.8
    assert entry["bytes"] < card["exports"]["safetensors"]["bytes"]
    assert not (tmp_path / "student.onnx").exists()


def test_int8_with_convolutions_wants_calibration(tmp_path):
    with pytest.raises(InputError, match="calibration"):
        export_student(_convnet(), tmp_path, card=CARD, samples=_random(4, 1, 8, 8),
                       formats=["int8"])  # fmt: skip
    assert not list(tmp_path.glob("*.onnx"))


class _Liar(nn.Module):
    """Answers otherwise once it is exported."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x):
        return self.linear(x) + (0.01 if torch.compiler.is_exporting() else 0.0)


def test_a_file_that_answers_otherwise_is_refused_and_removed(tmp_path):
    (tmp_path / "student.pt2").write_text("of an earlier export")
    with pytest.raises(RunError, match=r"pt2 file answers otherwise .* up to 0\.01"):
        export_student(_Liar(), tmp_path, card=CARD, samples=torch.ones(4, 4), formats=["pt2"])
    assert not (tmp_path / "student.pt2").exists()
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["exports"]["pt2"]["passed"] is False
    assert card["exports"]["safetensors"]["passed"] is True
    assert not list(tmp_path.glob(".*"))


class _FixedBatch(nn.Module):
    def forward(self, x):
        return x.reshape(4, -1)


def test_a_student_of_one_batch_size_cannot_be_exported(tmp_path):
    with pytest.raises(RunError, match=r"torch\.export cannot take this student"):
        export_student(_FixedBatch(), tmp_path, card=CARD, samples=torch.ones(4, 4),
                       formats=["pt2"])  # fmt: skip


class _Texts(nn.Module):
    """Token ids to a mapping, as language models answer."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, ids):
        hidden = self.embedding(ids)
        return {"hidden": hidden, "logits": self.head(hidden.mean(1))}


def test_token_ids_and_answers_by_name(tmp_path):
    model = _Texts().train()
    samples = torch.arange(60).reshape(6, 10) % 50
    card = export_student(model, tmp_path, card=CARD, samples=samples, formats=["pt2"])
    assert card["exports"]["pt2"]["passed"] is True
    assert model.training


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"formats": ["onx"]}, "'onx', did you mean 'onnx'"),
        ({"samples": torch.ones(1, 4)}, "two samples or more, found 1"),
    ],
)
def test_bad_input(tmp_path, options, message):
    given = {"card": CARD, "samples": torch.ones(2, 4)} | options
    with pytest.raises(InputError, match=message):
        export_student(nn.Linear(4, 2), tmp_path, **given)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(InputError, match="cannot create the folder"):
        export_student(nn.Linear(4, 2), tmp_path / "taken", card=CARD, samples=torch.ones(2, 4))


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match=r"pip install 'limbeck\[onnx\]'"):
        export_student(nn.Linear(4, 2), tmp_path, card=CARD, samples=torch.ones(2, 4),
                       formats=["onnx"])  # fmt: skip
