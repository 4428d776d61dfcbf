"""CRD: the loss, and the memory that feeds it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from limbeck import functional as F
from limbeck.errors import InputError
from limbeck.functional.contrastive import crd_row_scores, crd_scores
from limbeck.nn.memory import ContrastMemory, Embedding


def unit(*shape: int, seed: int = 0) -> Tensor:
    rows = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return rows / rows.norm(dim=-1, keepdim=True)


def options(batch: int = 3, negatives: int = 4, size: int = 5) -> dict[str, Tensor | int]:
    return {
        "student_rows": unit(batch, 1 + negatives, size, seed=2),
        "teacher_rows": unit(batch, 1 + negatives, size, seed=3),
        "normalizers": torch.tensor([50.0, 60.0], dtype=torch.float64),
        "samples": 20,
    }


def test_gradients_of_both_embeddings() -> None:
    student, teacher = unit(3, 5).requires_grad_(), unit(3, 5, seed=1).requires_grad_()
    torch.autograd.gradcheck(lambda s, t: F.crd_loss(s, t, **options()), (student, teacher))


def test_reductions_agree_and_order_does_not_matter() -> None:
    student, teacher, given = unit(3, 5), unit(3, 5, seed=1), options()
    values = F.crd_loss(student, teacher, **given, reduction="none")
    torch.testing.assert_close(F.crd_loss(student, teacher, **given), values.mean())
    order = torch.tensor([2, 0, 1])
    moved = given | {key: given[key][order] for key in ("student_rows", "teacher_rows")}
    turned = F.crd_loss(student[order], teacher[order], **moved, reduction="none")
    torch.testing.assert_close(turned, values[order])


def test_knowing_its_own_row_costs_less() -> None:
    given = options()
    own, other = given["teacher_rows"][:, 0], given["teacher_rows"][:, 1]
    teacher = unit(3, 5, seed=1)
    assert F.crd_loss(own, teacher, **given) < F.crd_loss(other, teacher, **given)


@pytest.mark.parametrize("samples", [6, 400])
def test_scores_of_picked_rows_are_the_same_both_ways(samples: int) -> None:
    """Six rows are multiplied at once, of 400 those picked are copied; the memory moves on."""
    embeddings, rows = unit(3, 5).requires_grad_(), unit(samples, 5, seed=1)
    picked = torch.tensor([[0, 2, 2, 5], [1, 0, 3, 4], [5, 5, 1, 0]])
    expected, _ = crd_scores(embeddings, embeddings, rows[picked], rows[picked])
    found = crd_row_scores(embeddings, rows, picked)
    torch.testing.assert_close(found, expected)
    gradient = torch.autograd.grad(expected.sum(), embeddings)[0]
    rows.zero_()
    torch.testing.assert_close(torch.autograd.grad(found.sum(), embeddings)[0], gradient)


def test_zero_embeddings_and_bfloat16_are_finite() -> None:
    given = {k: v.bfloat16() if isinstance(v, Tensor) else v for k, v in options().items()}
    zeros = torch.zeros(3, 5, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        loss = F.crd_loss(zeros, unit(3, 5).bfloat16(), **given)
    assert loss.dtype == torch.float32
    assert torch.isfinite(torch.autograd.grad(loss, zeros)[0]).all()


def test_compiles_in_one_graph() -> None:
    student, teacher, given = unit(3, 5), unit(3, 5, seed=1), options()
    compiled = torch.compile(F.crd_loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(
        compiled(student, teacher, **given), F.crd_loss(student, teacher, **given)
    )


def test_memory_compiles_in_one_graph() -> None:
    memory = ContrastMemory(10, 5, negatives=4)
    index = torch.tensor([1, 4, 7])
    compiled = torch.compile(memory, fullgraph=True, backend="aot_eager")
    compiled(unit(3, 5).float(), unit(3, 5, seed=1).float(), index, memory.draw(index))
    assert (memory.normalizers > 0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"student": torch.zeros(3, 4)}, r"embeddings \(B, d\) of one shape.*Embedding"),
        ({"student_rows": torch.zeros(3, 5, 4)}, r"1 \+ K rows"),
        ({"temperature": 0.0}, "temperature is 0.0"),
    ],
)
def test_wrong_input_is_refused(change: dict[str, object], message: str) -> None:
    given = {"student": unit(3, 5), "teacher": unit(3, 5)} | options() | change
    with pytest.raises(InputError, match=message):
        F.crd_loss(given.pop("student"), given.pop("teacher"), **given)


def test_memory_learns_in_training_only() -> None:
    memory = ContrastMemory(10, 5, negatives=4, momentum=0.5).double()
    student, teacher, index = unit(3, 5), unit(3, 5, seed=1), torch.tensor([1, 4, 7])
    negatives = memory.draw(index, torch.Generator().manual_seed(0))
    before = memory.student_rows.clone()
    memory.eval()(student, teacher, index, negatives)
    assert torch.equal(memory.student_rows, before)
    assert (memory.normalizers == -1).all()

    memory.train()(student, teacher, index, negatives)
    moved = (before[index] + student) / 2
    expected = moved / moved.norm(dim=1, keepdim=True)
    torch.testing.assert_close(memory.student_rows[index], expected)
    rest = torch.ones(10, dtype=torch.bool)
    rest[index] = False
    assert torch.equal(memory.student_rows[rest], before[rest])


def test_normalizers_are_set_once() -> None:
    memory = ContrastMemory(10, 5, negatives=4)
    index = torch.tensor([1, 4, 7])
    negatives = memory.draw(index, torch.Generator().manual_seed(0))
    memory(unit(3, 5).float(), unit(3, 5, seed=1).float(), index, negatives)
    first = memory.normalizers.clone()
    memory(unit(3, 5, seed=5).float(), unit(3, 5, seed=6).float(), index, negatives)
    assert (first > 0).all()
    assert torch.equal(memory.normalizers, first)


def test_memory_starts_the_same_for_one_seed() -> None:
    first, again, other = (ContrastMemory(6, 5, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.student_rows, again.student_rows)
    assert not torch.equal(first.student_rows, other.student_rows)
    assert not torch.equal(first.student_rows, first.teacher_rows)
    assert first.draw(torch.arange(2)).shape == (2, 16384)


def test_embeddings_have_norm_one_in_full_precision() -> None:
    embedding = Embedding(12, 5).bfloat16()
    embedded = embedding(torch.randn(3, 3, 2, 2).bfloat16())
    assert embedded.dtype == torch.float32
    torch.testing.assert_close(embedded.norm(dim=1), torch.ones(3))
