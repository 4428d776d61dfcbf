"""What every loss on features or relations must hold, and formulas against their papers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import layer_norm, smooth_l1_loss

from limbeck import functional as F
from limbeck.errors import InputError

MAP, WIDE_MAP, TOKENS, VECTOR = (4, 3, 4, 4), (4, 5, 6, 6), (4, 6, 3), (4, 5)


@dataclass(frozen=True)
class Example:
    """A loss on one list of student and one of teacher tensors, with their shapes."""

    call: Callable[..., Tensor]
    student: tuple[tuple[int, ...], ...]
    teacher: tuple[tuple[int, ...], ...]
    per_sample: bool = True
    zero_at_equality: bool = True

    def tensors(self, kind: str = "normal", dtype: torch.dtype = torch.float64):
        """Inputs: "normal", "zero", "equal", "single" (batch of one) or "narrow" (one channel)."""
        generator = torch.Generator().manual_seed(0)
        sides = [
            [torch.randn(_shape(x, kind), generator=generator, dtype=dtype) for x in shapes]
            for shapes in (self.student, self.teacher)
        ]
        if kind == "zero":
            sides = [[torch.zeros_like(x) for x in side] for side in sides]
        if kind == "equal":
            sides[1] = [x.clone() for x in sides[0]] + sides[1][len(sides[0]) :]
        return [[x.requires_grad_() for x in side] for side in sides]


def _shape(shape: tuple[int, ...], kind: str) -> list[int]:
    sizes = list(shape)
    if kind == "single":
        sizes[0] = 1
    if kind == "narrow":
        sizes[2 if len(sizes) == 3 else 1] = 1
    return sizes


def on_maps(loss: Callable[..., Tensor], shape=MAP, teacher=None, **options: Any) -> Example:
    def call(student: list[Tensor], teacher: list[Tensor], **more: Any) -> Tensor:
        return loss(student[0], teacher[0], **options, **more)

    return Example(call, (shape,), (teacher or shape,))


def on_batch(loss: Callable[..., Tensor], shape=MAP, teacher=VECTOR, **options: Any) -> Example:
    example = on_maps(loss, shape, teacher, **options)
    return Example(example.call, example.student, example.teacher, per_sample=False)


def changed(example: Example, **changes: Any) -> Example:
    return Example(**(vars(example) | changes))


def vid(student, teacher, **options):
    scale = torch.linspace(-1, 1, student[0].shape[1], dtype=torch.float64)
    return F.vid_loss(student[0], teacher[0], log_scale=scale, **options)


def srrl(student, teacher, **options):
    return F.srrl_loss(*student[:1], *teacher[:1], *student[1:], *teacher[1:], **options)


def semckd(student, teacher, **options):
    shares = torch.tensor([[0.2, 0.8], [0.5, 0.5]]).expand(len(student[0]), 2, 2)
    grids = [[student[0], student[1]], [student[2], student[3]]]
    targets = [[teacher[0], teacher[1]], [teacher[2], teacher[3]]]
    return F.semckd_loss(grids, targets, shares, **options)


def ofd(student, teacher, **options):
    margin = -torch.linspace(0.1, 1, student[0].shape[1])
    return F.ofd_loss(student[0], teacher[0], margin=margin, **options)


def catkd_kept(student, teacher, **options):
    return F.catkd_loss(
        student[0], teacher[0], keep=1, teacher_logits=teacher[1].detach(), binarize=True, **options
    )


EXAMPLES = {
    "fitnet": on_maps(F.fitnet_loss),
    "fitnet_tokens": on_maps(F.fitnet_loss, TOKENS, per="sample", normalize=True),
    "factor": on_maps(F.factor_loss),
    "factor_p2": on_maps(F.factor_loss, VECTOR, p=2, per="sample"),
    "vid": Example(vid, (MAP,), (MAP,), zero_at_equality=False),
    "mgd": on_maps(F.mgd_loss),
    "reviewkd_hcl": Example(F.reviewkd_hcl_loss, ((4, 2, 5, 5), MAP), ((4, 2, 5, 5), MAP)),
    "semckd": Example(semckd, (MAP,) * 4, (MAP,) * 4),
    "pkd": changed(on_maps(F.pkd_loss), per_sample=False),
    "cosine_smooth_l1": on_maps(F.cosine_smooth_l1_loss),
    "cosine_smooth_l1_tokens": on_maps(F.cosine_smooth_l1_loss, TOKENS),
    "at": on_maps(F.at_loss, MAP, WIDE_MAP),
    "at_norm": on_maps(F.at_loss, TOKENS, (4, 6, 5), form="norm"),
    "at_absolute": on_maps(F.at_loss, MAP, WIDE_MAP, form="absolute", power=3),
    "catkd": on_maps(F.catkd_loss, MAP, (4, 3, 6, 6)),
    "catkd_kept": changed(Example(catkd_kept, (MAP,), (MAP, (4, 3))), zero_at_equality=False),
    "cwd": on_maps(F.cwd_loss),
    "cwd_channels": on_maps(F.cwd_loss, TOKENS, over="channels"),
    "ab": changed(on_maps(F.ab_loss), zero_at_equality=False),
    "ofd": changed(Example(ofd, (MAP,), (MAP,)), zero_at_equality=False),
    "simkd": on_maps(F.simkd_loss),
    "srrl": Example(srrl, (MAP, (4, 5)), ((4, 3, 2, 2), (4, 5))),
    "vkd": changed(on_maps(F.vkd_loss, VECTOR), zero_at_equality=False),
    "srd": changed(on_maps(F.srd_loss, VECTOR), per_sample=False, zero_at_equality=False),
    "sp": on_batch(F.sp_loss),
    "cc": on_batch(F.cc_loss),
    "rkd": on_batch(F.rkd_loss),
    "rkd_distance": on_batch(F.rkd_distance_loss, normalize=True),
    "rkd_angle": on_batch(F.rkd_angle_loss, TOKENS),
    "pkt": on_batch(F.pkt_loss),
    "nst": on_maps(F.nst_loss, MAP, WIDE_MAP),
    "ickd": on_maps(F.ickd_loss, MAP, (4, 3, 2, 2)),
    "fsp": Example(F.fsp_loss, (MAP, WIDE_MAP, MAP), (MAP, WIDE_MAP, MAP)),
    "fsp_max": Example(
        lambda s, t, **more: F.fsp_loss(s, t, pool="max", **more), (MAP, WIDE_MAP), (MAP, WIDE_MAP)
    ),
}


def each(*, only: Callable[[Example], bool] = lambda example: True) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "example", [pytest.param(e, id=name) for name, e in EXAMPLES.items() if only(e)]
    )


EACH = each()


@EACH
def test_gradient_agrees_with_finite_differences(example: Example) -> None:
    student, teacher = example.tensors()
    torch.autograd.gradcheck(
        lambda *inputs: example.call(list(inputs), teacher), student, fast_mode=True
    )


@EACH
def test_teacher_is_a_constant(example: Example) -> None:
    student, teacher = example.tensors()
    gradients = torch.autograd.grad(
        example.call(student, teacher), student + teacher, allow_unused=True
    )
    assert all(gradient is not None for gradient in gradients[: len(student)])
    assert all(gradient is None for gradient in gradients[len(student) :])


@EACH
def test_order_of_the_batch_does_not_matter(example: Example) -> None:
    student, teacher = example.tensors()
    order = torch.tensor([2, 0, 3, 1])
    moved = [[x[order] for x in side] for side in (student, teacher)]
    torch.testing.assert_close(example.call(*moved), example.call(student, teacher))
    if example.per_sample:
        torch.testing.assert_close(
            example.call(*moved, reduction="none"),
            example.call(student, teacher, reduction="none")[order],
        )


@each(only=lambda example: example.per_sample)
def test_reductions_agree(example: Example) -> None:
    student, teacher = example.tensors()
    values = example.call(student, teacher, reduction="none")
    assert values.shape == (4,)
    torch.testing.assert_close(example.call(student, teacher), values.mean())
    torch.testing.assert_close(example.call(student, teacher, reduction="sum"), values.sum())
    with pytest.raises(InputError, match="'mean', 'sum' or 'none'"):
        example.call(student, teacher, reduction="batchmean")


@each(only=lambda example: example.zero_at_equality)
def test_zero_where_student_equals_teacher(example: Example) -> None:
    loss = example.call(*example.tensors("equal"))
    torch.testing.assert_close(loss, torch.zeros_like(loss), atol=1e-12, rtol=0)


@EACH
@pytest.mark.parametrize("kind", ["zero", "equal", "single", "narrow"])
def test_finite_at_the_edges(example: Example, kind: str) -> None:
    student, teacher = example.tensors(kind, torch.float32)
    loss = example.call(student, teacher)
    gradients = torch.autograd.grad(loss, student)
    assert torch.isfinite(loss)
    assert all(gradient.abs().max() < 1e4 for gradient in gradients)


@EACH
def test_zero_student_stays_finite_before_a_real_teacher(example: Example) -> None:
    student, teacher = example.tensors(dtype=torch.float32)
    zeros = [torch.zeros_like(x, requires_grad=True) for x in student]
    loss = example.call(zeros, teacher)
    assert torch.isfinite(loss)
    assert all(gradient.abs().max() < 1e6 for gradient in torch.autograd.grad(loss, zeros))


@EACH
def test_bfloat16_under_autocast_keeps_full_precision(example: Example) -> None:
    student, teacher = example.tensors(dtype=torch.float32)
    low = [[x.detach().bfloat16().requires_grad_() for x in side] for side in (student, teacher)]
    widened = [[x.detach().float() for x in side] for side in low]
    with torch.autocast("cpu", torch.bfloat16):
        loss = example.call(*low)
    assert loss.dtype in (torch.float32, torch.float64)
    torch.testing.assert_close(loss, example.call(*widened), rtol=1e-5, atol=1e-6)
    gradients = torch.autograd.grad(loss, low[0])
    assert all(g.dtype == torch.bfloat16 and torch.isfinite(g).all() for g in gradients)


@EACH
def test_compiles_in_one_graph(example: Example) -> None:
    student, teacher = example.tensors(dtype=torch.float32)
    torch.compiler.reset()
    compiled = torch.compile(example.call, fullgraph=True, backend="aot_eager", dynamic=False)
    loss, ours = compiled(student, teacher), example.call(student, teacher)
    torch.testing.assert_close(loss, ours)
    for left, right in zip(
        torch.autograd.grad(loss, student), torch.autograd.grad(ours, student), strict=True
    ):
        torch.testing.assert_close(left, right)


@EACH
def test_empty_batch_is_refused(example: Example) -> None:
    student, teacher = example.tensors()
    empty = [[x[:0] for x in side] for side in (student, teacher)]
    with pytest.raises(InputError, match=r"at least one sample.*\(0, "):
        example.call(*empty)


SHAPES = {
    F.fitnet_loss: (MAP, WIDE_MAP),
    F.factor_loss: (MAP, WIDE_MAP),
    F.mgd_loss: (MAP, WIDE_MAP),
    F.simkd_loss: (MAP, WIDE_MAP),
    F.pkd_loss: (MAP, TOKENS),
    F.cosine_smooth_l1_loss: (MAP, WIDE_MAP),
    F.reviewkd_hcl_loss: (MAP, WIDE_MAP),
    F.at_loss: (MAP, TOKENS),
    F.nst_loss: (MAP, TOKENS),
    F.ickd_loss: (MAP, WIDE_MAP),
    F.catkd_loss: (MAP, WIDE_MAP),
    F.cwd_loss: (MAP, WIDE_MAP),
    F.ab_loss: (MAP, WIDE_MAP),
    F.ofd_loss: (MAP, WIDE_MAP),
    F.vkd_loss: (VECTOR, (4, 7)),
    F.srd_loss: (VECTOR, MAP),
    F.sp_loss: (VECTOR, (4,)),
}


@pytest.mark.parametrize("loss", SHAPES, ids=lambda loss: loss.__name__)
def test_shapes_that_do_not_fit_are_named(loss: Callable[..., Tensor]) -> None:
    student, teacher = (torch.zeros(shape) for shape in SHAPES[loss])
    with pytest.raises(InputError) as caught:
        loss(student, teacher)
    message = str(caught.value)
    assert "adapter" in message
    assert loss.__name__ in message
    assert str(tuple(student.shape)) in message
    assert str(tuple(teacher.shape)) in message


def test_volumes_are_features_too() -> None:
    student, teacher = normal(2, 3, 2, 4, 4), normal(2, 3, 2, 4, 4, seed=1)
    flat = [x.flatten(2).transpose(1, 2) for x in (student, teacher)]
    for loss in (F.fitnet_loss, F.pkd_loss, F.vkd_loss, F.rkd_loss):
        torch.testing.assert_close(loss(student, teacher), loss(*flat))
    scale = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    torch.testing.assert_close(
        F.vid_loss(student, teacher, log_scale=scale), F.vid_loss(*flat, log_scale=scale)
    )


def test_two_batches_are_refused() -> None:
    with pytest.raises(InputError, match=r"one batch, got student \(4, 5\) and teacher \(3, 5\)"):
        F.sp_loss(torch.zeros(4, 5), torch.zeros(3, 5))


def test_features_that_are_no_tensors_are_refused() -> None:
    with pytest.raises(InputError, match="the teacher's are list"):
        F.fitnet_loss(torch.zeros(4, 5), [1.0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: F.factor_loss(x, x, p=3), "is 1 or 2, got 3"),
        (
            lambda x: F.fitnet_loss(x, x, per="batch"),
            "must be 'element' or 'sample'",
        ),
        (lambda x: F.factor_loss(x, x, per="batch"), "per is 'batch'"),
        (lambda x: F.at_loss(x, x, form="mean"), "form is 'mean': it must be 'squared'"),
        (lambda x: F.cwd_loss(x, x, temperature=0.0), "temperature is 0.0"),
        (lambda x: F.cwd_loss(x, x, over="batch"), "over is 'batch': it must be 'positions'"),
        (lambda x: F.catkd_loss(x, x, keep=2), "picks classes by teacher_logits"),
        (lambda x: F.fsp_loss([x], [x]), "two or more layers"),
        (
            lambda x: F.fsp_loss([x, x], [x]),
            "as many student layers as teacher",
        ),
        (lambda x: F.fsp_loss([x, x], [x, x], pool="mean"), "pool is 'mean': it must be 'average'"),
        (lambda x: F.rkd_loss(x, x, distance_weight=0, angle_weight=0), "other than 0"),
    ],
)
def test_wrong_options_are_refused(call: Callable[[Tensor], Tensor], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(torch.zeros(MAP))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_factor_is_a_direction() -> None:
    student, teacher = normal(4, 10).requires_grad_(), normal(4, 10, seed=1)
    scaled = F.factor_loss(7 * student, 0.3 * teacher)
    torch.testing.assert_close(scaled, F.factor_loss(student, teacher))
    per_sample = F.factor_loss(student, teacher, per="sample", reduction="none")
    torch.testing.assert_close(per_sample / 10, F.factor_loss(student, teacher, reduction="none"))


def test_factor_without_direction_teaches_nothing() -> None:
    student, teacher = normal(2, 10).requires_grad_(), normal(2, 10, seed=1)
    teacher[0] = 0
    loss = F.factor_loss(student, teacher, p=2, reduction="none")
    (gradient,) = torch.autograd.grad(loss.sum(), student)
    assert loss[0] == 0
    assert (gradient[0] == 0).all()
    assert (gradient[1] != 0).any()


def test_pkd_is_one_minus_pearson() -> None:
    student, teacher = normal(*MAP), normal(*MAP, seed=1)
    rows = [x.transpose(0, 1).flatten(1) for x in (student, teacher)]
    correlation = torch.stack(
        [torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(*rows, strict=True)]
    )
    count = rows[0].shape[1]
    expected = (1 - correlation.mean()) * (count - 1) / count
    torch.testing.assert_close(F.pkd_loss(student, teacher), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(F.pkd_loss(3 * student + 5, teacher), expected, rtol=1e-5, atol=0)


def test_association_weighs_pairs_and_averages_layers() -> None:
    student, teacher = normal(4, 4, 6), normal(4, 4, 6, seed=1)
    attention = normal(4, 2, 2, seed=2).softmax(2)
    errors = (student - teacher).square().mean(2).T.reshape(4, 2, 2)
    grids = [[x[0], x[1]] for x in (student[:2], student[2:])]
    targets = [[x[0], x[1]] for x in (teacher[:2], teacher[2:])]
    expected = (errors * attention).sum((1, 2)).mean() / 2
    torch.testing.assert_close(F.semckd_loss(grids, targets, attention), expected)


def test_cosine_smooth_l1_against_torch() -> None:
    student, teacher = normal(*TOKENS), normal(*TOKENS, seed=1)
    cosine = 1 - torch.cosine_similarity(student, teacher, dim=-1).mean()
    expected = 0.9 * cosine + 0.1 * smooth_l1_loss(student, teacher)
    torch.testing.assert_close(F.cosine_smooth_l1_loss(student, teacher), expected)


def test_vkd_against_torch() -> None:
    student, teacher = normal(*VECTOR), normal(*VECTOR, seed=1)
    expected = smooth_l1_loss(student, layer_norm(teacher, (5,)))
    torch.testing.assert_close(F.vkd_loss(student, teacher), expected)
    maps = student[:, :, None, None], teacher[:, :, None, None]
    torch.testing.assert_close(F.vkd_loss(*maps), expected)


def test_srd_against_torch() -> None:
    student, teacher = normal(*VECTOR), normal(*VECTOR, seed=1)
    norm = torch.nn.BatchNorm1d(5, eps=1e-4, affine=False).double()
    expected = (norm(student) - norm(teacher)).abs().pow(4).sum().log()
    torch.testing.assert_close(F.srd_loss(student, teacher, eps=0.0), expected)


def test_paper_form_of_attention_is_the_distance_of_maps() -> None:
    student, teacher = normal(*MAP), normal(*MAP, seed=1)
    maps = [x.pow(2).sum(1).flatten(1) for x in (student, teacher)]
    unit = [x / x.norm(dim=1, keepdim=True) for x in maps]
    expected = (unit[0] - unit[1]).norm(dim=1).mean()
    torch.testing.assert_close(F.at_loss(student, teacher, form="norm"), expected)


def test_class_activation_maps_average_to_the_logits() -> None:
    features, classifier = normal(*MAP), torch.nn.Linear(3, 7).double()
    maps = F.class_activation_maps(features, classifier.weight, classifier.bias)
    torch.testing.assert_close(maps.mean((2, 3)), classifier(features.mean((2, 3))))


def test_kept_classes_are_the_teachers_highest() -> None:
    student, teacher = normal(*MAP), normal(*MAP, seed=1)
    logits = torch.tensor([[3.0, 1.0, 2.0]]).expand(4, 3)
    kept = F.catkd_loss(student, teacher, keep=2, teacher_logits=logits)
    torch.testing.assert_close(kept, F.catkd_loss(student[:, [0, 2]], teacher[:, [0, 2]]))


def test_margin_is_the_mean_of_negative_responses() -> None:
    weight, bias = torch.tensor([1.0, -2.0, 0.5, 0.0]), torch.tensor([0.3, -1.0, 9.0, 1.0])
    draws = bias[:2, None] + weight[:2, None].abs() * torch.randn(
        2, 400_000, generator=torch.Generator().manual_seed(0)
    )
    sampled = torch.stack([row[row < 0].mean() for row in draws])
    margin = F.ofd_margin(weight, bias)
    torch.testing.assert_close(margin[:2], sampled, rtol=1e-2, atol=0)
    assert margin[2] == -1.5  # hardly ever negative: three deviations
    assert margin[3] == 0  # a constant


def test_nothing_is_paid_beyond_the_margin() -> None:
    teacher = torch.tensor([[-2.0, 3.0]])
    assert F.ab_loss(torch.tensor([[-1.5, 1.5]]), teacher) == 0
    assert F.ab_loss(torch.tensor([[0.0, 0.0]]), teacher) == 2
    assert F.ofd_loss(torch.tensor([[-5.0, 3.0]]), teacher, margin=torch.tensor([-1.0, -1.0])) == 0


def test_float64_stays_beside_float32() -> None:
    assert F.fitnet_loss(normal(*MAP), normal(*MAP).float()).dtype == torch.float64


def test_half_precision_does_not_overflow() -> None:
    student = torch.full((2, 3, 4, 4), 300.0, dtype=torch.float16)
    assert torch.isfinite(F.sp_loss(student, -student))
    assert torch.isfinite(F.fitnet_loss(student, -student))
