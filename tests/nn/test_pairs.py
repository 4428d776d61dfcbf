from __future__ import annotations

import pytest
import torch

from limbeck.errors import InputError
from limbeck.models.ref import parse_ref
from limbeck.models.source import build_model
from limbeck.nn.pairs import choose_taps, hidden, penultimate, stages
from limbeck.nn.taps import tap_shapes

BLOCKS = {
    "embed": (50, 24),
    **{f"blocks.{i}": (50, 24) for i in range(6)},
    "norm": (50, 24),
    "pool": (24,),
    "head": (10,),
}
MLP = {
    "flatten": (64,),
    "layer1.0": (32,),
    "layer1": (32,),
    "layer2.0": (16,),
    "layer2": (16,),
    "out": (10,),
}


def shapes(name: str) -> dict[str, tuple[int, ...]]:
    model = build_model(parse_ref(f"limbeck:{name}"), shape=(3, 32, 32), classes=10)
    return tap_shapes(model, torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("convnet?widths=8,16,32", ["layer1", "layer2", "layer3"]),
        ("resnet8", ["layer1", "layer2", "layer3"]),
        ("resnet8x4", ["layer1", "layer2", "layer3"]),
        ("vgg8", ["layer1", "layer2", "layer3", "layer5"]),
        ("mlp?widths=64,32", ["layer1", "layer2"]),
    ],
)
def test_stages_of_our_networks(name: str, expected: list[str]) -> None:
    assert stages(shapes(name)) == expected


def test_stages_of_a_transformer_are_spread_over_its_blocks() -> None:
    assert stages(BLOCKS) == ["blocks.1", "blocks.2", "blocks.4", "blocks.5"]


def test_flattening_is_no_stage() -> None:
    assert stages(MLP) == ["layer1", "layer2"]


def test_last_average_is_no_stage() -> None:
    maps = {"a": (8, 8, 8), "b": (16, 4, 4), "average": (16, 1, 1), "out": (10,)}
    assert stages(maps) == ["a", "b"]
    assert penultimate(maps) == "average"


def test_nested_stages_are_found() -> None:
    maps = {
        "stem": (8, 32, 32),
        "stages.0": (8, 32, 32),
        "stages.1": (16, 16, 16),
        "stages.2": (32, 8, 8),
        "stages": (32, 8, 8),
        "head": (10,),
    }
    assert stages(maps) == ["stages.0", "stages.1", "stages"]


def test_features_as_wide_as_the_logits_are_kept() -> None:
    assert list(hidden({"a": (10,), "head.0": (10,), "head": (10,)})) == ["a"]


def test_equal_counts_pair_in_order() -> None:
    pairs = choose_taps(shapes("convnet?widths=4,8,16"), shapes("resnet8"))
    assert pairs == [("layer1", "layer1"), ("layer2", "layer2"), ("layer3", "layer3")]


def test_unequal_counts_pair_by_resolution_and_end_with_the_last() -> None:
    small = {"s1": (4, 16, 16), "s2": (8, 4, 4), "out": (10,)}
    large = {"t1": (4, 32, 32), "t2": (8, 16, 16), "t3": (8, 8, 8), "t4": (8, 4, 4), "out": (10,)}
    assert choose_taps(small, large) == [("s1", "t2"), ("s2", "t4")]
    assert choose_taps(large, small) == [("t2", "s1"), ("t4", "s2")]


def test_unlike_kinds_pair_by_depth() -> None:
    small = {"s1": (4, 16, 16), "s2": (8, 4, 4), "out": (10,)}
    assert choose_taps(small, BLOCKS) == [("s1", "blocks.2"), ("s2", "blocks.5")]
    assert choose_taps(MLP, small) == [("layer1", "s1"), ("layer2", "s2")]


def test_a_bare_classifier_has_no_stage() -> None:
    with pytest.raises(InputError, match="student has no module"):
        choose_taps({"linear": (10,)}, MLP)
