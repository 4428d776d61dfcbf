"""What relations between samples, channels and layers do not see."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from limbeck import functional as F


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(size: int) -> Tensor:
    return torch.linalg.qr(normal(size, size, seed=9)).Q


RELATIONS = [F.sp_loss, F.cc_loss, F.rkd_distance_loss, F.rkd_angle_loss, F.pkt_loss]


@pytest.mark.parametrize("loss", RELATIONS, ids=lambda loss: loss.__name__)
def test_rotated_features_hold_the_same_relations(loss: Callable[..., Tensor]) -> None:
    student = normal(6, 5)
    relation = loss(student @ rotation(5) * 3, student)
    torch.testing.assert_close(relation, torch.zeros_like(relation), atol=1e-9, rtol=0)


@pytest.mark.parametrize("loss", [F.rkd_distance_loss, F.rkd_angle_loss])
def test_distances_and_angles_do_not_see_a_shift(loss: Callable[..., Tensor]) -> None:
    student, teacher = normal(6, 5), normal(6, 4, seed=1)
    torch.testing.assert_close(loss(student + 100, teacher), loss(student, teacher))


def test_distances_survive_a_large_offset_in_float32() -> None:
    student, teacher = normal(6, 5), normal(6, 5, seed=1)
    expected = F.rkd_distance_loss(student, teacher)
    shifted = F.rkd_distance_loss((student + 1000).float(), teacher.float())
    torch.testing.assert_close(shifted.double(), expected, rtol=1e-3, atol=0)


def test_distance_against_the_paper() -> None:
    student, teacher = normal(5, 3), normal(5, 4, seed=1)
    relative = []
    for rows in (student, teacher):
        distances = torch.cdist(rows, rows)
        relative.append(distances / distances[distances > 1e-6].mean())
    expected = torch.nn.functional.smooth_l1_loss(*relative)
    torch.testing.assert_close(F.rkd_distance_loss(student, teacher), expected)


def test_equal_samples_give_no_gradient_explosion() -> None:
    student = normal(1, 5).float().expand(4, 5).clone().requires_grad_()
    loss = F.rkd_loss(student, normal(4, 5).float())
    (gradient,) = torch.autograd.grad(loss, student)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() < 1e4


def test_weights_pick_parts() -> None:
    student, teacher = normal(5, 3), normal(5, 4, seed=1)
    both = F.rkd_loss(student, teacher)
    parts = 25 * F.rkd_distance_loss(student, teacher) + 50 * F.rkd_angle_loss(student, teacher)
    torch.testing.assert_close(both, parts)
    torch.testing.assert_close(
        F.rkd_loss(student, teacher, distance_weight=2, angle_weight=0),
        2 * F.rkd_distance_loss(student, teacher),
    )


def test_kernel_is_the_gaussian_of_unit_rows() -> None:
    student, teacher = normal(5, 3), normal(5, 4, seed=1)
    kernels = []
    for rows in (student, teacher):
        unit = rows / rows.norm(dim=1, keepdim=True)
        kernels.append(torch.exp(-0.4 * torch.cdist(unit, unit).square()))
    expected = (kernels[0] - kernels[1]).square().mean()
    torch.testing.assert_close(F.cc_loss(student, teacher, order=20), expected)


def test_order_and_sign_of_channels_do_not_matter_to_nst() -> None:
    student, teacher = normal(3, 4, 5, 5), normal(3, 6, 5, 5, seed=1)
    moved = -student[:, [2, 0, 3, 1]]
    torch.testing.assert_close(F.nst_loss(moved, teacher), F.nst_loss(student, teacher))


def test_flow_is_the_mean_inner_product() -> None:
    maps = [normal(2, 3, 4, 4), normal(2, 5, 4, 4, seed=1)]
    zeros = [torch.zeros_like(x) for x in maps]
    flow = torch.einsum("bchw,bdhw->bcd", *maps) / 16
    torch.testing.assert_close(F.fsp_loss(maps, zeros), flow.square().mean())


def test_tokens_are_maps_without_a_grid() -> None:
    student, teacher = normal(3, 4, 3, 3), normal(3, 4, 3, 3, seed=1)
    tokens = [x.flatten(2).transpose(1, 2) for x in (student, teacher)]
    for loss in (F.at_loss, F.nst_loss, F.ickd_loss, F.cwd_loss, F.cosine_smooth_l1_loss):
        torch.testing.assert_close(loss(*tokens), loss(student, teacher))
