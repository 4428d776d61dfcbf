"""Taps: what a module gave, by its path."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from limbeck.errors import InputError
from limbeck.nn.taps import Taps, tap_shapes


def model() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(4, 3), nn.Sequential(nn.ReLU(), nn.Dropout(0.5)), nn.Linear(3, 2)
    )


def test_outputs_are_recorded_once_and_with_their_graph() -> None:
    net = model().eval()
    taps = Taps(net, ["0", "1.0"])
    x = torch.randn(5, 4)
    net(x)
    values = taps.take()
    torch.testing.assert_close(values["0"], net[0](x))
    torch.testing.assert_close(values["1.0"], net[0](x).relu())
    assert values["1.0"].requires_grad
    taps.take()
    assert taps.take() == {}


def test_the_model_is_as_before_once_taps_are_removed() -> None:
    net = model()
    taps = Taps(net, ["1"])
    taps.remove()
    net(torch.randn(5, 4))
    assert taps.take() == {}
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize("path", ["", "3", "1.relu"])
def test_a_path_that_is_not_there(path: str) -> None:
    with pytest.raises(InputError, match=rf"the teacher has no module '{path}' to tap"):
        Taps(model(), [path], "teacher")


def test_the_nearest_name_is_suggested() -> None:
    net = nn.Sequential()
    net.add_module("layer1", nn.Identity())
    net.add_module("layer2", nn.Identity())
    with pytest.raises(InputError, match=r"did you mean 'layer1'\?.*limbeck taps"):
        Taps(net, ["layr1"])


def test_the_first_tensor_of_several_is_read_and_no_other_thing() -> None:
    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, int]:
            return x + 1, 3

    class Named(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"x": x}

    net = nn.Sequential()
    net.add_module("pair", Pair())
    taps = Taps(net, ["pair"])
    net(torch.zeros(2))
    assert torch.equal(taps.take()["pair"], torch.ones(2))
    named = nn.Sequential(Named())
    Taps(named, ["0"])
    with pytest.raises(InputError, match="gives dict, not a tensor"):
        named(torch.zeros(2))


def test_shapes_in_the_order_of_the_calls() -> None:
    net = model().train()
    shapes = tap_shapes(net, torch.zeros(2, 4))
    assert list(shapes.items()) == [
        ("0", (3,)),
        ("1.0", (3,)),
        ("1.1", (3,)),
        ("1", (3,)),
        ("2", (2,)),
    ]
    assert net.training
    assert not any(module._forward_hooks for module in net.modules())
