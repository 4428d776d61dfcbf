import pytest
import torch
import torch.nn.functional as nnf
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.data import geometry
from limbeck.data.geometry import mirror, shift
from limbeck.data.random import generator


def images(shape, dtype, seed=0):
    return (torch.randn(shape, generator=generator(seed, "x")) * 50).to(dtype)


def by_hand(x, offset, padding, mode, mirrored):
    """One image at a time, by torch's own padding."""
    pad_mode = "constant" if mode == "zeros" else mode
    height, width = x.shape[2:]
    windows = []
    for image, number, flip in zip(x, offset.tolist(), mirrored.tolist(), strict=True):
        image = image.flip(-1) if flip else image
        padded = nnf.pad(image[None].double(), (padding,) * 4, mode=pad_mode)[0].to(x.dtype)
        down, right = divmod(number, 2 * padding + 1)
        windows.append(padded[:, down : down + height, right : right + width])
    return torch.stack(windows)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64, torch.int16])
@pytest.mark.parametrize("mode", ["zeros", "reflect"])
@pytest.mark.parametrize("table", [geometry._LARGEST_TABLE, 0])
def test_windows_are_those_of_torch_padding(dtype, mode, table, monkeypatch):
    monkeypatch.setattr(geometry, "_LARGEST_TABLE", table)
    x = images((40, 3, 6, 9), dtype)
    offset = torch.arange(40) * 2 % 81
    mirrored = torch.arange(40) % 3 == 0
    found = shift(x, offset, padding=4, mode=mode, mirrored=mirrored)
    assert torch.equal(found, by_hand(x, offset, 4, mode, mirrored))
    assert found.dtype == dtype
    assert found.is_contiguous()


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 6),
    st.integers(1, 3),
    st.integers(2, 7),
    st.integers(2, 7),
    st.integers(1, 9),
    st.integers(0, 1000),
)
def test_any_shape_and_padding(count, channels, height, width, padding, seed):
    x = images((count, channels, height, width), torch.uint8, seed)
    stream = generator(seed, "offset")
    offset = torch.randint(0, (2 * padding + 1) ** 2, (count,), generator=stream)
    mirrored = torch.rand(count, generator=stream) < 0.5
    found = shift(x, offset, padding=padding, mirrored=mirrored)
    assert torch.equal(found, by_hand(x, offset, padding, "zeros", mirrored))


def test_the_middle_window_is_the_image():
    x = images((5, 1, 8, 8), torch.float32)
    assert torch.equal(shift(x, torch.full((5,), 40), padding=4), x)


def test_no_trace_of_neighbours_nor_of_earlier_batches():
    x = torch.full((6, 1, 4, 4), -1.0)
    found = shift(x, torch.zeros(6, dtype=torch.int64), padding=2)
    cleared = found[:, :, :2]
    assert torch.equal(cleared, torch.zeros_like(cleared))
    assert not torch.signbit(cleared).any()


@pytest.mark.parametrize("some", [[True, False, True], [False] * 3, [True] * 3])
def test_mirror_flips_exactly_the_chosen(some):
    x = images((3, 2, 4, 5), torch.uint8)
    found = mirror(x, torch.tensor(some))
    for place, flipped in enumerate(some):
        assert torch.equal(found[place], x[place].flip(-1) if flipped else x[place])


def test_inputs_are_left_alone():
    x = images((4, 3, 8, 8), torch.uint8)
    before = x.clone()
    shift(x, torch.arange(4), padding=4, mirrored=torch.ones(4, dtype=torch.bool))
    mirror(x, torch.ones(4, dtype=torch.bool))
    assert torch.equal(x, before)
