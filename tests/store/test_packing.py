"""What a store keeps of logits, and what comes back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.store.packing import pack, unpack


def logits(rows: int, classes: int, seed: int = 0, scale: float = 4.0) -> torch.Tensor:
    return torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed)) * scale


def test_all_logits_in_fp32_come_back_bit_for_bit() -> None:
    given = logits(5, 7)
    assert torch.equal(unpack(pack(given, None, "fp32"), 7), given)
    assert torch.equal(unpack(pack(given, 9, "fp32"), 7), given)


@settings(deadline=None, max_examples=40)
@given(classes=st.integers(3, 40), seed=st.integers(0, 9), scale=st.sampled_from([0.1, 3.0, 30.0]))
def test_spread_keeps_every_kept_probability(classes: int, seed: int, scale: float) -> None:
    top = max(1, classes // 3)
    given = logits(4, classes, seed, scale)
    back = unpack(pack(given, top, "fp32"), classes).softmax(-1)
    wanted = given.softmax(-1)
    places = wanted.topk(top).indices
    torch.testing.assert_close(
        back.gather(1, places), wanted.gather(1, places), rtol=2e-4, atol=1e-6
    )
    others = back.scatter(1, places, 0.0)
    mass = 1 - wanted.gather(1, places).sum(1)
    torch.testing.assert_close(others.sum(1), mass, rtol=1e-3, atol=2e-6)
    assert (others.sort(1).values[:, top:].diff(dim=1).abs() < 1e-6).all()  # all alike


def test_renormalize_gives_the_others_nothing() -> None:
    given = logits(4, 12)
    back = unpack(pack(given, 3, "fp32"), 12, "renormalize").softmax(-1)
    values, places = given.topk(3)
    torch.testing.assert_close(back.gather(1, places), values.softmax(-1))
    assert (back.scatter(1, places, 0.0) == 0).all()


def test_kept_logits_stay_finite_in_half_precision() -> None:
    given = torch.tensor([[1e6, -1e6, 0.0]])
    assert unpack(pack(given, None, "fp16"), 3).isfinite().all()
    assert unpack(pack(given, 1, "fp16"), 3).isfinite().all()


def test_a_sure_teacher_leaves_no_nan() -> None:
    given = torch.tensor([[300.0, 0.0, 0.0, 0.0]])
    for tail in ("spread", "renormalize"):
        back = unpack(pack(given, 1, "fp32"), 4, tail)
        assert back.isfinite().all()
        assert back.softmax(-1)[0, 0] == 1


def test_more_classes_than_16_bits_count() -> None:
    kept = pack(logits(2, 40_000), 5, "fp16")
    assert kept["indices"].dtype == torch.int32
    assert torch.equal(kept["indices"].long(), logits(2, 40_000).topk(5).indices)


@pytest.mark.parametrize(("dtype", "rounding"), [("fp16", 2**-11), ("bf16", 2**-8)])
def test_half_precision_rounds_once(dtype: str, rounding: float) -> None:
    given = logits(6, 10)
    back = unpack(pack(given, None, dtype), 10)  # type: ignore[arg-type]
    assert ((back - given).abs() <= rounding * given.abs() + 1e-7).all()
