from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.errors import InputError
from limbeck.nn.adapters import Adapter, grid_of, with_width

CHANNELS = st.integers(1, 5)
SIDE = st.integers(1, 6)
VECTORS = st.tuples(CHANNELS)
MAPS = st.tuples(CHANNELS, SIDE, SIDE)
VOLUMES = st.tuples(CHANNELS, SIDE, SIDE, SIDE)
GRID_TOKENS = st.builds(
    lambda side, extra, channels: (side * side + extra, channels),
    SIDE,
    st.sampled_from([0, 1]),
    CHANNELS,
)
TOKENS = st.tuples(st.integers(1, 12), CHANNELS)
FLAT = st.one_of(VECTORS, MAPS, GRID_TOKENS)
PAIRS = st.one_of(
    st.tuples(FLAT, FLAT),
    st.tuples(TOKENS, TOKENS),
    st.tuples(VOLUMES, st.one_of(VOLUMES, VECTORS)),
    st.tuples(VECTORS, VOLUMES),
)
KINDS = st.sampled_from(["auto", "norm", "linear", "mlp"])


def run(adapter: Adapter, student: tuple[int, ...], teacher: tuple[int, ...]) -> list[torch.Tensor]:
    inputs = torch.randn(2, *student, requires_grad=True), torch.randn(2, *teacher)
    return list(adapter(*inputs))


@settings(deadline=None, max_examples=150)
@given(pair=PAIRS, kind=KINDS)
def test_shapes_agree_for_every_pair_of_kinds(
    pair: tuple[tuple[int, ...], tuple[int, ...]], kind: str
) -> None:
    adapter = Adapter(*pair, kind=kind)
    student, teacher = run(adapter, *pair)
    assert student.shape == teacher.shape == (2, *adapter.student_shape)
    assert adapter.student_shape == adapter.teacher_shape
    assert student.requires_grad
    assert not teacher.requires_grad


@settings(deadline=None, max_examples=80)
@given(pair=st.tuples(FLAT, FLAT), grid=st.booleans())
def test_maps_come_out_where_maps_are_asked_for(
    pair: tuple[tuple[int, ...], tuple[int, ...]], grid: bool
) -> None:
    adapter = Adapter(*pair, grid=grid, channels=False, maps=True)
    student, teacher = run(adapter, *pair)
    assert student.dim() == teacher.dim() == 4
    assert tuple(student.shape[1:]) == adapter.student_shape
    assert tuple(teacher.shape[1:]) == adapter.teacher_shape
    assert student.shape[2:] == teacher.shape[2:] or not grid
    assert list(adapter.parameters()) == []


@given(shape=st.one_of(VECTORS, MAPS, TOKENS, VOLUMES))
def test_equal_shapes_need_nothing(shape: tuple[int, ...]) -> None:
    adapter = Adapter(shape, shape)
    assert list(adapter.parameters()) == []
    inputs = torch.randn(2, *shape), torch.randn(2, *shape)
    assert all(torch.equal(a, b) for a, b in zip(inputs, adapter(*inputs), strict=True))


def test_the_smaller_grid_is_taken_axis_by_axis() -> None:
    adapter = Adapter((3, 8, 2), (3, 4, 6))
    student, teacher = run(adapter, (3, 8, 2), (3, 4, 6))
    assert student.shape == teacher.shape == (2, 3, 4, 2)


def test_average_pooling_keeps_the_mean() -> None:
    maps = torch.randn(2, 3, 8, 8)
    _, teacher = Adapter((3, 4, 4), (3, 8, 8))(torch.randn(2, 3, 4, 4), maps)
    assert torch.allclose(teacher.mean((2, 3)), maps.mean((2, 3)), atol=1e-6)


def test_class_token_is_dropped_beside_maps() -> None:
    tokens = torch.randn(2, 17, 5)
    _, teacher = Adapter((3, 4, 4), (17, 5))(torch.randn(2, 3, 4, 4), tokens)
    assert torch.equal(teacher.flatten(2).transpose(1, 2), tokens[:, 1:])


def test_class_token_is_kept_between_equal_token_counts() -> None:
    student, teacher = run(Adapter((17, 4), (17, 6)), (17, 4), (17, 6))
    assert student.shape == teacher.shape == (2, 17, 6)


def test_grids_of_tokens_need_not_be_square() -> None:
    assert grid_of((8 * 3 + 1, 4), like=(5, 8, 3)) == (8, 3)
    assert grid_of((50, 4)) == (7, 7)
    assert grid_of((23, 4)) is None


def test_mlp_is_two_layers_and_linear_one() -> None:
    assert len(list(Adapter((4,), (6,), kind="mlp").parameters())) == 4
    assert len(list(Adapter((4,), (4,), kind="linear").parameters())) == 2


@pytest.mark.parametrize("shape", [(6,), (9, 6), (6, 3, 3), (6, 2, 3, 3)])
def test_norm_standardizes_each_channel_over_the_batch(shape: tuple[int, ...]) -> None:
    adapter = Adapter(shape, with_width(shape, 4), kind="norm")
    student, _ = adapter(torch.randn(32, *shape), torch.randn(32, *with_width(shape, 4)))
    rows = student if len(shape) == 2 else student.movedim(1, -1)
    flat = rows.reshape(-1, 4)
    torch.testing.assert_close(flat.mean(0), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(flat.std(0, correction=0), torch.ones(4), atol=1e-2, rtol=0)
    assert Adapter(shape, shape, kind="norm").layer is None


def test_adapters_can_be_copied_and_loaded() -> None:
    adapter = Adapter((4, 8, 8), (17, 6))
    again = copy.deepcopy(adapter)
    again.load_state_dict(adapter.state_dict())
    inputs = torch.randn(2, 4, 8, 8), torch.randn(2, 17, 6)
    assert torch.equal(adapter(*inputs)[0], again(*inputs)[0])


@pytest.mark.parametrize(
    ("student", "teacher", "reason"),
    [
        ((3, 4, 4), (3, 4, 4, 4), "volumes meet"),
        ((7, 4, 4), (23, 4), "23 tokens form no square grid"),
        ((2, 3, 4, 5, 6), (3,), "no vectors"),
        ((), (3,), "no vectors"),
    ],
)
def test_impossible_pairs_are_one_sentence(
    student: tuple[int, ...], teacher: tuple[int, ...], reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        Adapter(student, teacher)


def test_none_refuses_unlike_channels() -> None:
    with pytest.raises(InputError, match="3 channels and the teacher's 5"):
        Adapter((3, 4, 4), (5, 4, 4), kind="none")
