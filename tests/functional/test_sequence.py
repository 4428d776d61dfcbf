"""Token losses: which tokens count, ends of families, fused forms, unlike vocabularies."""

from __future__ import annotations

import functools
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as tf

import limbeck.functional as F
from limbeck.errors import InputError

GENERATOR = torch.Generator().manual_seed(0)
STUDENT, TEACHER = torch.randn(2, 2, 4, 7, dtype=torch.float64, generator=GENERATOR)
TARGET = torch.tensor([[-100, 3, 2, -100], [1, -100, -100, 0]])
COUNTED = TARGET != -100
TOKEN_LOSSES = [
    F.fkl_loss,
    F.rkl_loss,
    F.symkl_loss,
    F.jsd_loss,
    F.gkd_jsd_loss,
    F.skl_loss,
    F.srkl_loss,
    F.tvd_loss,
    F.akl_loss,
]
each = pytest.mark.parametrize("loss", TOKEN_LOSSES, ids=lambda loss: loss.__name__)


def near(value, expected, tolerance=1e-9):
    torch.testing.assert_close(value, expected, rtol=tolerance, atol=tolerance)


@each
def test_mean_is_over_the_tokens_that_count(loss):
    near(loss(STUDENT, TEACHER, TARGET), loss(STUDENT[COUNTED], TEACHER[COUNTED]))
    values = loss(STUDENT, TEACHER, TARGET, reduction="none")
    assert values.shape == TARGET.shape
    assert (values[~COUNTED] == 0).all()
    near(loss(STUDENT, TEACHER, TARGET, reduction="sum"), values.sum())
    elsewhere = TARGET.masked_fill(~COUNTED, 99)
    near(loss(STUDENT, TEACHER, elsewhere, ignore_index=99), loss(STUDENT, TEACHER, TARGET))


@each
def test_nothing_counts(loss):
    student = STUDENT.clone().requires_grad_()
    value = loss(student, TEACHER, torch.full_like(TARGET, -100))
    value.backward()
    assert value == 0
    assert (student.grad == 0).all()


@each
def test_tokens_ruled_out_by_minus_infinity(loss):
    barred = torch.tensor([False] * 5 + [True] * 2)
    student = STUDENT.clone().requires_grad_()
    value = loss(student.masked_fill(barred, -torch.inf), TEACHER.masked_fill(barred, -torch.inf))
    value.backward()
    near(value, loss(STUDENT[..., :5], TEACHER[..., :5]))
    assert student.grad.isfinite().all()


@each
def test_log_probabilities_are_taken_as_they_are(loss):
    value = loss(STUDENT.log_softmax(-1), TEACHER.log_softmax(-1), TARGET, normalized=True)
    near(value, loss(STUDENT, TEACHER, TARGET))


def test_divergences_against_torch():
    q, p = (torch.distributions.Categorical(logits=z) for z in (STUDENT, TEACHER))
    forward, reverse = (torch.distributions.kl_divergence(*pq) for pq in ((p, q), (q, p)))
    near(F.fkl_loss(STUDENT, TEACHER), forward.mean())
    near(F.rkl_loss(STUDENT, TEACHER), reverse.mean())
    near(F.symkl_loss(STUDENT, TEACHER, reverse=0.25), (0.75 * forward + 0.25 * reverse).mean())
    near(F.fkl_loss(STUDENT, TEACHER, cross_entropy=True), (forward + p.entropy()).mean())
    mixed = torch.distributions.Categorical(probs=0.3 * p.probs + 0.7 * q.probs)
    kl = torch.distributions.kl_divergence
    near(F.jsd_loss(STUDENT, TEACHER, beta=0.3), (0.3 * kl(p, mixed) + 0.7 * kl(q, mixed)).mean())
    near(F.skl_loss(STUDENT, TEACHER, skew=0.3), kl(p, mixed).mean())
    near(F.srkl_loss(STUDENT, TEACHER, skew=0.7), kl(q, mixed).mean())
    near(F.tvd_loss(STUDENT, TEACHER), (p.probs - q.probs).abs().sum(-1).mean() / 2)


def test_ends_of_the_families():
    forward, reverse = F.fkl_loss(STUDENT, TEACHER), F.rkl_loss(STUDENT, TEACHER)
    near(F.gkd_jsd_loss(STUDENT, TEACHER, beta=0.0), forward)
    near(F.gkd_jsd_loss(STUDENT, TEACHER, beta=1.0), reverse)
    near(F.jsd_loss(STUDENT, TEACHER, beta=1e-6) / 1e-6, forward, 1e-4)
    near(F.skl_loss(STUDENT, TEACHER, skew=0.0), forward)
    near(F.srkl_loss(STUDENT, TEACHER, skew=0.0), reverse)
    near(F.akl_loss(STUDENT, TEACHER, mass=1.0, boundary="head"), forward)


def test_head_is_the_teachers_most_likely_tokens():
    teacher = torch.tensor([[0.5, 0.3, 0.15, 0.05]], dtype=torch.float64).log()
    student = torch.tensor([[0.4, 0.4, 0.1, 0.1]], dtype=torch.float64).log()
    gaps = torch.tensor([0.1, 0.1, 0.05, 0.05], dtype=torch.float64)
    for mass, boundary, head in [
        (0.6, "tail", 1),
        (0.6, "head", 2),
        (0.1, "tail", 1),
        (0.9, "tail", 2),
    ]:
        share = F.akl_head_share(student, teacher, mass=mass, boundary=boundary)
        near(share, (gaps[:head].sum() / gaps.sum()).view(1))


def heads():
    student, teacher = torch.randn(2, 4, 3).double(), torch.randn(2, 4, 5).double()
    weights = torch.randn(9, 3).double(), torch.randn(9, 5).double()
    biases = torch.randn(2, 9).double()
    return [x.requires_grad_() for x in (student, weights[0], biases[0])], (
        teacher,
        weights[1],
        biases[1],
    )


def compare_with_unfused(fused, loss, target):
    (hidden, weight, bias), (known, known_weight, known_bias) = heads()
    logits = tf.linear(hidden, weight, bias), tf.linear(known, known_weight, known_bias)
    plain = loss(*logits, target)
    value = fused(
        hidden,
        weight,
        known,
        known_weight,
        target,
        student_bias=bias,
        teacher_bias=known_bias,
        chunk=3,
    )
    near(value, plain)
    inputs = (hidden, weight, bias)
    for ours, theirs in zip(
        torch.autograd.grad(2 * value.sum(), inputs),
        torch.autograd.grad(2 * plain.sum(), inputs),
        strict=True,
    ):
        near(ours, theirs)


@each
@pytest.mark.parametrize("target", [TARGET, None, torch.full_like(TARGET, -100)])
def test_fused_linear_form_of_any_loss(loss, target):
    compare_with_unfused(functools.partial(F.fused_linear_loss, loss=loss), loss, target)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("target", [TARGET, None, torch.full_like(TARGET, -100)])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_fused_jsd(beta, target, reduction):
    options = {"beta": beta, "temperature": 1.7, "reduction": reduction}
    compare_with_unfused(
        functools.partial(F.fused_linear_jsd_loss, **options),
        functools.partial(F.gkd_jsd_loss, **options),
        target,
    )


def test_fused_value_for_each_token():
    loss = functools.partial(F.fkl_loss, reduction="none")
    fused = functools.partial(F.fused_linear_loss, loss=F.fkl_loss, reduction="none")
    compare_with_unfused(fused, loss, TARGET)


def test_frozen_head_of_the_fused_jsd():
    (hidden, weight, _), (known, known_weight, _) = heads()
    F.fused_linear_jsd_loss(hidden, weight.detach(), known, known_weight).backward()
    assert hidden.grad.abs().sum() > 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own
@pytest.mark.parametrize("fused", [F.fused_linear_loss, F.fused_linear_jsd_loss])
def test_fused_forms_compile_into_one_graph(fused):
    compiled = torch.compile(fused, fullgraph=True, backend="aot_eager")
    compare_with_unfused(compiled, F.gkd_jsd_loss, TARGET)


MEMORY = """
import resource, sys, torch
import limbeck.functional as F
torch.set_num_threads(1)
hidden, known = torch.randn(2, 1024, 16)
weight, known_weight = torch.randn(2, 32000, 16)
hidden, weight = hidden.requires_grad_(), weight.requires_grad_()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
if sys.argv[1] == "fused":
    loss = F.fused_linear_jsd_loss(hidden, weight, known, known_weight)
else:
    loss = F.gkd_jsd_loss(hidden @ weight.T, known @ known_weight.T)
loss.backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_fused_jsd_needs_a_quarter_of_the_memory():
    fused, plain = (
        float(
            subprocess.run(
                [sys.executable, "-c", MEMORY, which], check=True, capture_output=True
            ).stdout
        )
        for which in ("fused", "plain")
    )
    assert fused <= plain / 4


def uld_by_loops(student, teacher, target, teacher_target, shift):
    """Position by position, sample by sample."""
    per_sample = []
    for s, t, y, z in zip(student, teacher, target, teacher_target, strict=True):
        ours = [s[i - shift].softmax(-1) for i in range(shift, len(y)) if y[i] != -100]
        theirs = [t[i - shift].softmax(-1) for i in range(shift, len(z)) if z[i] != -100]
        distances = []
        for q, p in zip(ours, theirs, strict=False):
            q, p = (sorted([*x.tolist(), 0.0, 0.0, 0.0], reverse=True) for x in (q, p))
            distances.append(sum(abs(a - b) for a, b in zip(q[:7], p[:7], strict=True)))
        per_sample.append(sum(distances) / max(len(distances), 1))
    return torch.tensor(per_sample, dtype=torch.float64)


@pytest.mark.parametrize("shift", [False, True])
def test_unlike_vocabularies_and_lengths(shift):
    teacher = torch.randn(2, 6, 5, dtype=torch.float64, generator=GENERATOR)
    teacher_target = torch.tensor([[-100, -100, 1, 2, 3, -100], [-100] * 6])
    target = torch.tensor([[-100, 3, 2, -100], [1, -100, 0, 0]])
    value = F.uld_loss(STUDENT, teacher, target, teacher_target, shift=shift, reduction="none")
    near(value, uld_by_loops(STUDENT, teacher, target, teacher_target, shift))
    assert value[1] == 0


def test_ends_of_answers_left_out():
    full = F.uld_loss(STUDENT, TEACHER, skip_student_end=True)
    near(full, F.uld_loss(STUDENT[:, :-1], TEACHER[:, :-1]))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: F.fkl_loss(STUDENT, TEACHER, TARGET[0]), r"integers of shape \(2, 4\)"),
        (lambda: F.fkl_loss(STUDENT, TEACHER, reduction="batchmean"), "'mean', 'sum' or 'none'"),
        (lambda: F.fkl_loss(STUDENT, TEACHER[..., :5]), "the same shape"),
        (lambda: F.rkl_loss(STUDENT, TEACHER, temperature=0.0), "temperature is 0.0"),
        (lambda: F.jsd_loss(STUDENT, TEACHER, beta=1.1), "beta is 1.1"),
        (lambda: F.skl_loss(STUDENT, TEACHER, skew=-0.1), "skew is -0.1"),
        (lambda: F.akl_loss(STUDENT, TEACHER, mass=2.0), "mass is 2.0"),
        (lambda: F.uld_loss(STUDENT, TEACHER[:1]), "one batch size"),
        (lambda: F.uld_loss(STUDENT[0], TEACHER[0]), "3 or more dimensions"),
        (lambda: F.uld_loss(STUDENT, TEACHER, teacher_temperature=0.0), "teacher_temperature"),
        (
            lambda: F.fused_linear_loss(STUDENT, torch.ones(3, 7), TEACHER, torch.ones(4, 7)),
            "the same vocabulary",
        ),
        (
            lambda: F.fused_linear_jsd_loss(
                STUDENT, torch.ones(3, 7), TEACHER, torch.ones(3, 7), chunk=0
            ),
            "chunk is 0",
        ),
    ],
)
def test_bad_input_is_one_sentence(call, words):
    with pytest.raises(InputError, match=words):
        call()
