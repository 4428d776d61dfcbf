"""What every loss on logits and tokens must hold, from one table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import limbeck.functional as F


@dataclass(frozen=True)
class Loss:
    """A loss of student logits, teacher logits and class ids, and what holds for it."""

    call: Callable[..., Tensor]
    per_sample: bool = True
    zero_at_equality: bool = True
    takes_logits: bool = True  # so a constant added to all classes changes nothing
    full_gradient: bool = True  # no part of the value is a constant to the gradient


def pair(loss, **options):
    """`loss` for the table where it takes no class ids."""
    return lambda s, t, y, **more: loss(s, t, **options, **more)


def labelled(loss, **options):
    return lambda s, t, y, **more: loss(s, t, y, **options, **more)


def regions(x):
    return torch.stack([x, x.roll(1, 0), x / 2], dim=-1)


THETA = torch.zeros(1)
LOSSES = {
    "kd": Loss(pair(F.kd_loss)),
    "kd_cross_entropy": Loss(pair(F.kd_loss, cross_entropy=True), zero_at_equality=False),
    "kd_standardized": Loss(pair(F.kd_loss, standardize=True)),
    "topk_kd": Loss(pair(F.topk_kd_loss, top_k=2, temperature=2.0)),
    "topk_kd_one": Loss(pair(F.topk_kd_loss, top_k=1)),
    "lskd": Loss(pair(F.lskd_loss)),
    "tfkd_self": Loss(pair(F.tfkd_self_loss)),
    "tfkd_reg": Loss(lambda s, t, y, **o: F.tfkd_reg_loss(s, y, **o), zero_at_equality=False),
    "pskd": Loss(labelled(F.pskd_loss), zero_at_equality=False),
    "dml": Loss(lambda s, t, y, **o: F.dml_loss(s, [t, t.clone()], **o)),
    "dkd": Loss(labelled(F.dkd_loss)),
    "dkd_standardized": Loss(labelled(F.dkd_loss, standardize=True)),
    "nkd": Loss(labelled(F.nkd_loss), zero_at_equality=False),
    "wsld": Loss(labelled(F.wsld_loss), zero_at_equality=False, full_gradient=False),
    "wttm": Loss(pair(F.wttm_loss), zero_at_equality=False),
    "ofa": Loss(labelled(F.ofa_loss, gamma=1.4), zero_at_equality=False),
    "deit_hard": Loss(pair(F.deit_hard_loss), zero_at_equality=False),
    "deit_soft": Loss(pair(F.deit_soft_loss)),
    "logit_mse": Loss(pair(F.logit_mse_loss), takes_logits=False),
    "ctkd": Loss(lambda s, t, y, **o: F.ctkd_loss(s, t, THETA, **o)),
    "sdd": Loss(lambda s, t, y, **o: F.sdd_loss(regions(s), regions(t), y, **o)),
    "sdd_nkd": Loss(
        lambda s, t, y, **o: F.sdd_loss(regions(s), regions(t), y, loss=F.nkd_loss, **o),
        zero_at_equality=False,
    ),
    "dist": Loss(pair(F.dist_loss), per_sample=False, zero_at_equality=False),  # up to its 1e-8
    "mlkd_batch": Loss(pair(F.mlkd_batch_loss), per_sample=False),
    "mlkd_class": Loss(pair(F.mlkd_class_loss), per_sample=False),
    "mlkd": Loss(pair(F.mlkd_loss), per_sample=False),
    "bce_kd": Loss(pair(F.bce_kd_loss), takes_logits=False),
    "bce_kd_cross_entropy": Loss(
        pair(F.bce_kd_loss, cross_entropy=True), takes_logits=False, zero_at_equality=False
    ),
    "regression": Loss(pair(F.regression_loss), takes_logits=False),
    "regression_l1": Loss(pair(F.regression_loss, distance="l1"), takes_logits=False),
    "regression_smooth": Loss(pair(F.regression_loss, distance="smooth_l1"), takes_logits=False),
    "bounded_regression": Loss(
        lambda s, t, y, **o: F.bounded_regression_loss(s, t, torch.ones_like(s), **o),
        takes_logits=False,
    ),
    "fkl": Loss(labelled(F.fkl_loss)),
    "rkl": Loss(labelled(F.rkl_loss)),
    "symkl": Loss(labelled(F.symkl_loss, reverse=0.3)),
    "jsd": Loss(labelled(F.jsd_loss, beta=0.2)),
    "gkd_jsd": Loss(labelled(F.gkd_jsd_loss, beta=0.7, temperature=2.0)),
    "gkd_jsd_forward": Loss(labelled(F.gkd_jsd_loss, beta=0.0)),
    "gkd_jsd_reverse": Loss(labelled(F.gkd_jsd_loss, beta=1.0)),
    "skl": Loss(labelled(F.skl_loss)),
    "srkl": Loss(labelled(F.srkl_loss)),
    "tvd": Loss(labelled(F.tvd_loss)),
    "akl": Loss(labelled(F.akl_loss), full_gradient=False),
    "akl_head": Loss(labelled(F.akl_loss, boundary="head"), full_gradient=False),
    "uld": Loss(lambda s, t, y, **o: F.uld_loss(s.unsqueeze(1), t.unsqueeze(1), **o)),
}


def which(condition: Callable[[Loss], bool] = lambda loss: True):
    """Parametrizes a test over the losses for which `condition` holds."""
    chosen = [pytest.param(loss, id=name) for name, loss in LOSSES.items() if condition(loss)]
    return pytest.mark.parametrize("loss", chosen)


@st.composite
def batches(draw, smallest: int = 1):
    """Student logits, teacher logits and class ids of a small batch, float64."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    shape = draw(st.integers(smallest, 5)), draw(st.integers(2, 6))
    scale = draw(st.sampled_from([0.1, 1.0, 6.0]))
    student, teacher = scale * torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    return student, teacher, torch.randint(shape[1], shape[:1], generator=generator)


examples = settings(max_examples=8, deadline=None, derandomize=True)


def near(a: Tensor, b: Tensor, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@which(lambda loss: loss.takes_logits)
@examples
@given(batch=batches())
def test_a_constant_added_to_all_logits_changes_nothing(loss, batch):
    student, teacher, target = batch
    shift = 3.0 * torch.arange(len(target), dtype=student.dtype).unsqueeze(1) - 4
    near(loss.call(student + shift, teacher - 2 * shift, target), loss.call(*batch))


@which()
@examples
@given(batch=batches())
def test_order_of_classes_does_not_matter(loss, batch):
    student, teacher, target = batch
    order = torch.arange(student.shape[1]).flip(0)
    turned = loss.call(student[:, order], teacher[:, order], order[target])
    near(turned, loss.call(*batch))


@which()
@examples
@given(batch=batches(smallest=2))
def test_order_of_samples_does_not_matter(loss, batch):
    turned = [x.roll(1, 0) for x in batch]
    near(loss.call(*turned), loss.call(*batch))
    if loss.per_sample and loss.call not in (LOSSES["sdd"].call, LOSSES["sdd_nkd"].call):
        values = loss.call(*batch, reduction="none")
        near(loss.call(*turned, reduction="none"), values.roll(1, 0))


@which(lambda loss: loss.per_sample)
@examples
@given(batch=batches())
def test_reductions_agree(loss, batch):
    values = loss.call(*batch, reduction="none")
    assert values.shape == batch[2].shape
    near(loss.call(*batch), values.mean())
    near(loss.call(*batch, reduction="sum"), values.sum())


@which(lambda loss: loss.zero_at_equality)
@examples
@given(batch=batches(smallest=2))
def test_zero_at_equality_and_never_below(loss, batch):
    _, teacher, target = batch
    assert loss.call(*batch) >= 0
    student = teacher.clone().requires_grad_()
    value = loss.call(student, teacher, target)
    (gradient,) = torch.autograd.grad(value, student)
    near(value, torch.zeros_like(value), 1e-6)
    near(gradient, torch.zeros_like(student), 1e-5)


@which(lambda loss: loss.full_gradient)
@settings(max_examples=3, deadline=None, derandomize=True)
@given(batch=batches())
def test_gradient_is_that_of_finite_differences(loss, batch):
    student, teacher, target = batch
    function = lambda s: loss.call(s, teacher, target)  # noqa: E731
    assert torch.autograd.gradcheck(function, student.clone().requires_grad_(), atol=1e-4)


@which()
def test_teacher_is_a_constant(loss):
    student, teacher = torch.randn(2, 4, 3, requires_grad=True).unbind()
    teacher = teacher.detach().requires_grad_()
    loss.call(student, teacher, torch.tensor([0, 1, 2, 0])).backward()
    assert teacher.grad is None


@which()
@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (3, 1), (3, 5)])
@pytest.mark.parametrize("pattern", ["agree", "oppose", "flat", "mixed"])
def test_extreme_logits_and_lone_classes_stay_finite(loss, shape, pattern):
    peaks = torch.full(shape, -1e4)
    peaks[:, 0] = 1e4
    student, teacher = {
        "agree": (peaks, peaks.clone()),
        "oppose": (-peaks, peaks),
        "flat": (torch.zeros(shape), torch.zeros(shape)),
        "mixed": (peaks, torch.arange(peaks.numel()).view(shape).float()),
    }[pattern]
    student = student.requires_grad_()
    for label in {0, shape[1] - 1}:
        value = loss.call(student, teacher, torch.full(shape[:1], label))
        (gradient,) = torch.autograd.grad(value, student)
        assert value.isfinite()
        assert gradient.isfinite().all()


@which()
def test_half_precision_under_autocast_computes_in_float32(loss):
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 6, 5, generator=generator).bfloat16()
    target = torch.randint(5, (6,), generator=generator)
    half, full = student.requires_grad_(), student.detach().float().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss.call(half, teacher, target)
    exact = loss.call(full, teacher.float(), target)
    assert value.dtype == torch.float32
    near(value, exact, 1e-6)
    value.backward()
    exact.backward()
    assert half.grad.dtype == torch.bfloat16
    torch.testing.assert_close(half.grad.float(), full.grad, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("name", ["kd", "dkd", "kd_standardized", "bce_kd"])
def test_gradient_keeps_its_size_when_the_temperature_rises(name):
    batch = torch.randn(2, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    sizes = []
    for temperature in (100.0, 400.0):
        student = batch[0].clone().requires_grad_()
        LOSSES[name].call(
            student, batch[1], torch.arange(6) % 5, temperature=temperature
        ).backward()
        sizes.append(float(student.grad.norm()))
    assert sizes[1] == pytest.approx(sizes[0], rel=0.02)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's own, on compiling
def test_all_compile_into_one_graph_and_agree():
    def everything(student, teacher, target):
        return torch.stack([loss.call(student, teacher, target) for loss in LOSSES.values()])

    compiled = torch.compile(everything, fullgraph=True, dynamic=True)
    for size in (6, 9):
        generator = torch.Generator().manual_seed(size)
        student, teacher = torch.randn(2, size, 5, generator=generator)
        target = torch.randint(5, (size,), generator=generator)
        results = []
        for function in (everything, compiled):
            own = student.clone().requires_grad_()
            values = function(own, teacher, target)
            (gradient,) = torch.autograd.grad(values.sum(), own)
            results.append((values.detach(), gradient))
        torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-5)
