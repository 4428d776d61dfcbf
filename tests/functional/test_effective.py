"""Effective logits: the minimum of the two-term loss, its limits, and the correction threshold."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as tf

import limbeck.functional as F
from limbeck.errors import InputError


def grid(count: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(0)
    z = 6 * torch.randn(count, generator=draws, dtype=torch.float64)
    return z, torch.randint(0, 2, (count,), generator=draws)


@pytest.mark.parametrize("classes", [1, 4])
@pytest.mark.parametrize(("ratio", "temperature"), [(0.9, 1.0), (0.3, 4.0), (0.01, 2.0)])
def test_the_loss_is_stationary_there(classes: int, ratio: float, temperature: float) -> None:
    z, y = grid(40)
    teacher = z if classes == 1 else z.view(-1, classes)
    y = y if classes == 1 else y[: len(teacher)]
    found = F.effective_logits(teacher, y, soft_ratio=ratio, temperature=temperature)
    found.requires_grad_()
    if classes == 1:
        soft = tf.binary_cross_entropy_with_logits(
            found / temperature, (teacher / temperature).sigmoid(), reduction="sum"
        )
        hard = tf.binary_cross_entropy_with_logits(found, y.double(), reduction="sum")
    else:
        targets = (teacher / temperature).softmax(1)
        soft = tf.cross_entropy(found / temperature, targets, reduction="sum")
        hard = tf.cross_entropy(found, y, reduction="sum")
    (gradient,) = torch.autograd.grad(ratio * soft + (1 - ratio) * hard, found)
    assert gradient.abs().max() < 1e-12


def test_binary_and_two_classes_agree() -> None:
    z, y = grid()
    one = F.effective_logits(z, y, soft_ratio=0.4, temperature=3.0)
    both = torch.stack([torch.zeros_like(z), z], 1)
    two = F.effective_logits(both, y, soft_ratio=0.4, temperature=3.0)
    torch.testing.assert_close(two[:, 1] - two[:, 0], one, rtol=1e-9, atol=1e-9)


def test_limits_and_order() -> None:
    z, y = grid()
    torch.testing.assert_close(F.effective_logits(z, y, soft_ratio=1.0, temperature=4.0), z)
    mixed = F.effective_logits(z, y, soft_ratio=0.5, temperature=2.0)
    assert (mixed[y == 1] >= z[y == 1]).all()
    assert (mixed[y == 0] <= z[y == 0]).all()
    rising = F.effective_logits(z.sort().values, y * 0, soft_ratio=0.5, temperature=2.0)
    assert (rising.diff() > 0).all()
    signed = F.effective_logits(z, 2 * y - 1, soft_ratio=0.5, temperature=2.0)
    torch.testing.assert_close(signed, mixed)


def test_a_saturated_teacher_keeps_its_logit() -> None:
    z = torch.tensor([2000.0, -2000.0], dtype=torch.float64)
    found = F.effective_logits(z, torch.tensor([1, 0]), soft_ratio=0.5, temperature=1.0)
    torch.testing.assert_close(found, z)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_below_the_threshold_the_label_turns_the_sign(temperature: float) -> None:
    z = grid()[0].abs() + 0.1
    wrong = torch.zeros(len(z), dtype=torch.long)
    threshold = F.correction_threshold(z, temperature=temperature)
    assert (threshold >= temperature / (temperature + 1)).all()
    for factor, turned in ((0.999, True), (1.001, False)):
        ratio = (factor * threshold).clamp(max=1)
        found = F.effective_logits(z, wrong, soft_ratio=ratio, temperature=temperature)
        strict = ratio < 1
        assert ((found < 0) == turned)[strict].all()


def test_both_forms_of_the_loss_have_one_minimum() -> None:
    ratio = F.soft_ratio(0.9, temperature=4.0)
    assert F.soft_weight(ratio, temperature=4.0) == pytest.approx(0.9)
    z, y = torch.tensor([[2.0, -1.0, 0.5]], dtype=torch.float64), torch.tensor([1])
    found = F.effective_logits(z, y, soft_ratio=ratio, temperature=4.0).requires_grad_()
    loss = F.kd_loss(found, z, temperature=4.0) * 0.9 + 0.1 * tf.cross_entropy(found, y)
    (gradient,) = torch.autograd.grad(loss, found)
    assert gradient.abs().max() < 1e-12


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"soft_ratio": 0.0}, "infinite"),
        ({"soft_ratio": 1.5}, "soft_ratio"),
        ({"temperature": 0.0}, "temperature"),
        ({"teacher": torch.tensor([float("nan"), 1.0])}, "finite"),
        ({"target": torch.tensor([0, 2])}, "0 and 1"),
        ({"target": torch.tensor([0])}, "shape"),
        ({"teacher": torch.ones(2, 3), "target": torch.tensor([0, 3])}, "0 to 2"),
    ],
)
def test_bad_input(change: dict[str, object], words: str) -> None:
    given = {
        "teacher": torch.ones(2),
        "target": torch.tensor([0, 1]),
        "soft_ratio": 0.5,
        "temperature": 1.0,
    } | change
    with pytest.raises(InputError, match=words):
        F.effective_logits(given.pop("teacher"), given.pop("target"), **given)
    with pytest.raises(InputError, match="between 0 and 1"):
        F.soft_ratio(2.0, temperature=1.0)
