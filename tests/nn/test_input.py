"""The input adapter: the data's samples as a model wants them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from limbeck.errors import InputError
from limbeck.nn.input import InputAdapter


def test_without_anything_to_do_samples_pass_through() -> None:
    tokens = torch.arange(6).view(2, 3)
    assert InputAdapter()(tokens) is tokens


def test_normalization_of_each_channel() -> None:
    x = torch.rand(2, 3, 4, 4)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 0.2)
    expected = torch.stack([(x[:, c] - mean[c]) / std[c] for c in range(3)], 1)
    torch.testing.assert_close(InputAdapter(mean, std)(x), expected)


def test_bytes_are_read_as_shares_of_255() -> None:
    x = torch.randint(256, (2, 1, 4, 4), dtype=torch.uint8)
    torch.testing.assert_close(InputAdapter()(x), x / 255)
    torch.testing.assert_close(InputAdapter((0.5,), (0.5,))(x), (x / 255 - 0.5) * 2)


def test_resolution() -> None:
    x = torch.ones(2, 1, 4, 4)
    resized = InputAdapter(size=(8, 6))(x)
    assert resized.shape == (2, 1, 8, 6)
    torch.testing.assert_close(resized, torch.ones(2, 1, 8, 6))
    assert InputAdapter(size=(4, 4))(x) is x


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"mean": (0.5,)}, "equal length"),
        ({"mean": (0.5,), "std": (0.5, 0.5)}, "equal length"),
        ({"mean": (0.5,), "std": (0.0,)}, "must be positive"),
    ],
)
def test_statistics_that_do_not_fit(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        InputAdapter(**options)


def test_an_adapter_is_no_part_of_the_weights() -> None:
    assert InputAdapter((0.5,), (0.5,)).state_dict() == {}
