"""Checkpoints: tensors and facts there and back; nothing else is read."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from limbeck.engine.checkpoint import load_tensors, nest, save_tensors, unnest
from limbeck.errors import InputError


def test_there_and_back(tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    tensors = {"a": shared.view(2, 3).T, "b": shared[:2], "n": torch.tensor(3)}
    save_tensors(tmp_path / "c.safetensors", tensors, {"step": 4, "best": None})
    loaded, facts = load_tensors(tmp_path / "c.safetensors")
    assert facts == {"step": 4, "best": None}
    assert all(torch.equal(loaded[key], tensors[key]) for key in tensors)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", pickle.dumps({"a": 1})])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=str(path)):
        load_tensors(path)
    with pytest.raises(InputError, match=r"none\.safetensors"):
        load_tensors(tmp_path / "none.safetensors")


def test_names_in_names() -> None:
    inner = {"w": torch.ones(1), "b.c": torch.zeros(1)}
    outer = nest("ema", inner) | nest("emad", {"w": torch.ones(2)})
    assert unnest("ema", outer).keys() == inner.keys()
