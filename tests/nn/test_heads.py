"""The small trained heads between student and teacher."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from limbeck import functional as F
from limbeck.errors import InputError
from limbeck.nn.fusion import FusionBlock, LayerAssociation, ReviewFusion
from limbeck.nn.heads import (
    Connector,
    Exit,
    MarginConnector,
    MaskedGenerator,
    OrthogonalProjector,
    ReuseProjector,
    VariationalHead,
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_connectors_map_channels_and_grids() -> None:
    maps = torch.randn(2, 3, 8, 8)
    assert Connector(3, 5)(maps).shape == (2, 5, 8, 8)
    assert (Connector(3, 5)(maps) >= 0).all()
    assert (Connector(3, 5, relu=False)(maps) < 0).any()
    assert Connector(3, 5, kernel=3, stride=2, padding=1, bias=True)(maps).shape == (2, 5, 4, 4)
    assert ReuseProjector(3, 6)(maps).shape == (2, 6, 8, 8)
    with pytest.raises(InputError, match="between 1 and the 6 channels"):
        ReuseProjector(3, 6, factor=7)


def test_margin_comes_from_the_teacher_and_travels_with_the_state() -> None:
    norm = nn.BatchNorm2d(5)
    nn.init.normal_(norm.bias)
    connector = MarginConnector(3, norm)
    torch.testing.assert_close(connector.margin, F.ofd_margin(norm.weight, norm.bias))
    assert "margin" in connector.state_dict()
    assert connector(torch.randn(2, 3, 4, 4)).shape == (2, 5, 4, 4)
    with pytest.raises(InputError, match="weight and bias"):
        MarginConnector(3, nn.BatchNorm2d(5, affine=False))


def test_variance_starts_where_it_is_told() -> None:
    head = VariationalHead(3, 5, variance=2.0)
    torch.testing.assert_close(nn.functional.softplus(head.log_scale) + 1e-5, torch.full((5,), 2.0))
    features, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 5, 4, 4)
    F.vid_loss(head(features), teacher, log_scale=head.log_scale).backward()
    assert all(parameter.grad is not None for parameter in head.parameters())


@pytest.mark.parametrize(("mask", "ratio"), [("positions", 0.75), ("channels", 0.15)])
def test_masked_share(mask: str, ratio: float) -> None:
    head = MaskedGenerator(3, 5, ratio=ratio, mask=mask)
    maps = torch.randn(4, 3, 6, 6)
    assert head(maps, torch.rand(head.mask_shape(maps))).shape == (4, 5, 6, 6)
    hidden = 1 - head.mask(torch.linspace(0, 1, 10_001)[:-1]).mean()
    assert hidden.item() == pytest.approx(ratio, abs=1e-3)


def test_hidden_positions_do_not_reach_the_generator() -> None:
    head = MaskedGenerator(3, 3)
    maps = torch.randn(1, 3, 6, 6)
    uniform = torch.ones(head.mask_shape(maps)) - 1e-3
    torch.testing.assert_close(head(maps, uniform), head(torch.randn_like(maps), uniform))
    with pytest.raises(InputError, match=r"\[0, 1\), got 1.0"):
        MaskedGenerator(3, 3, ratio=1.0)


@pytest.mark.parametrize(("student", "teacher"), [(4, 7), (7, 4), (5, 5)])
def test_projection_stays_orthogonal(student: int, teacher: int) -> None:
    projector = OrthogonalProjector(student, teacher)
    optimizer = torch.optim.SGD(projector.parameters(), lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        F.vkd_loss(projector(torch.randn(8, student)), torch.randn(8, teacher)).backward()
        optimizer.step()
    weight = projector.weight if teacher <= student else projector.weight.T
    torch.testing.assert_close(weight @ weight.T, torch.eye(len(weight)), rtol=0, atol=1e-5)
    assert copy.deepcopy(projector)(torch.randn(2, student)).shape == (2, teacher)


@pytest.mark.parametrize("depth", [1, 3])
def test_exits_answer_from_maps_and_tokens(depth: int) -> None:
    maps = Exit(4, 10, depth=depth)(torch.randn(2, 4, 16, 16))
    tokens = Exit(6, 10, depth=depth, tokens=True)(torch.randn(2, 9, 6))
    assert maps.shape == tokens.shape == (2, 10)
    assert torch.isfinite(F.ofa_loss(maps, tokens, torch.tensor([1, 2]), gamma=1.5))


def test_fusion_block_mixes_by_attention() -> None:
    block = FusionBlock(3, 4, 5).eval()
    features, deeper = torch.randn(2, 3, 6, 6), torch.randn(2, 4, 3, 3)
    out, mixed = block(features, deeper, (6, 6))
    left, right = block.reduce(features), interpolate(deeper, (6, 6), mode="nearest")
    assert block.attention is not None
    shares = block.attention(torch.cat([left, right], 1)).sigmoid()
    torch.testing.assert_close(mixed, left * shares[:, :1] + right * shares[:, 1:])
    torch.testing.assert_close(out, block.expand(mixed))


def test_review_fusion_gives_the_teachers_shapes() -> None:
    sizes = [(8, 8), (4, 4), (1, 1)]
    fusion = ReviewFusion([2, 3, 4], [5, 6, 7], sizes)
    features = [torch.randn(2, 2, 6, 6), torch.randn(2, 3, 3, 3), torch.randn(2, 4, 2, 2)]
    fused = fusion(features)
    teacher = [torch.randn(2, c, *size) for c, size in zip([5, 6, 7], sizes, strict=True)]
    assert [x.shape for x in fused] == [x.shape for x in teacher]
    F.reviewkd_hcl_loss(fused, teacher).backward()
    assert all(parameter.grad is not None for parameter in fusion.parameters())
    with pytest.raises(InputError, match="3 of the student, 2 of the teacher"):
        ReviewFusion([2, 3, 4], [5, 6], sizes)


def association(batch: int) -> tuple[LayerAssociation, list[Tensor], list[Tensor]]:
    head = LayerAssociation([2, 3], [4, 5], batch=batch)
    student = [torch.randn(batch, 2, 6, 6), torch.randn(batch, 3, 3, 3)]
    teacher = [torch.randn(batch, 4, 5, 5).requires_grad_(), torch.randn(batch, 5, 3, 3)]
    return head, student, teacher


def test_association_shares_teacher_layers_out() -> None:
    head, student, teacher = association(8)
    projected, targets, attention = head(student, teacher)
    torch.testing.assert_close(attention.sum(2), torch.ones(8, 2))
    for row, target_row in zip(projected, targets, strict=True):
        assert [x.shape for x in row] == [x.shape for x in target_row]
    F.semckd_loss(projected, targets, attention).backward()
    assert teacher[0].grad is None
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_association_takes_a_smaller_last_batch_only() -> None:
    head, student, teacher = association(8)
    attention = head([x[:3] for x in student], [x[:3] for x in teacher])[2]
    torch.testing.assert_close(attention.sum(2), torch.ones(3, 2))
    with pytest.raises(InputError, match="batches of 8 samples, got 9"):
        head([torch.cat([x, x[:1]]) for x in student], teacher)
    with pytest.raises(InputError, match="at least factor = 4, got 3"):
        LayerAssociation([2], [4], batch=3)


@pytest.mark.parametrize("autocast", [False, True])
def test_heads_train_and_deep_copy(autocast: bool) -> None:
    maps = torch.randn(4, 3, 8, 8)
    for head in (Connector(3, 4), VariationalHead(3, 4), ReuseProjector(3, 4), Exit(3, 4)):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            out = copy.deepcopy(head)(maps)
        assert torch.isfinite(out).all()
