"""From a recipe's words to a method: terms, weights, options and what other packages bring."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import limbeck
from limbeck.data.base import Record
from limbeck.errors import InputError
from limbeck.methods.base import Clock, Method, Term
from limbeck.methods.build import dump_method, parse_method
from limbeck.methods.registry import all_methods, find_method
from limbeck.recipe.spec import DataSpec, Recipe
from limbeck.runs.execute import make_method
from limbeck.runs.job import make_job

CLOCK = Clock(0, 10, 5)
ROWS, POOL = 4, 3


def batch() -> Record:
    """Four labelled samples and three of the pool."""
    source = torch.Generator().manual_seed(0)
    student = torch.randn(ROWS + POOL, 5, generator=source).requires_grad_()
    teacher = torch.randn(ROWS + POOL, 5, generator=source)
    return {"student.logits": student, "teacher.logits": teacher, "y": torch.arange(ROWS)}


def build(method: Any, teachers: int = 1) -> Method:
    network = torch.nn.Linear(2, 5)
    data = torch.randn(60, 2, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 5
    recipe = Recipe.model_validate({"method": method, "training": {"device": "cpu"}})
    teacher = [copy.deepcopy(network)] * teachers
    job = make_job(recipe, student=network, teachers=teacher, data=data)
    return make_method(job, job.build(0))


def losses(method: Any) -> dict[str, Tensor]:
    return build(method).losses(batch(), CLOCK)


def soft(record: Record, temperature: float) -> Tensor:
    """T² KL(teacher ‖ student) at a temperature, summed over classes, mean over samples."""
    ours = (record["student.logits"] / temperature).log_softmax(-1)
    theirs = (record["teacher.logits"] / temperature).softmax(-1)
    return temperature**2 * F.kl_div(ours, theirs, reduction="batchmean")


def labels(record: Record) -> Tensor:
    return F.cross_entropy(record["student.logits"][:ROWS], record["y"])


def test_labels_alone_are_cross_entropy_of_the_labelled_rows() -> None:
    found = losses("labels")
    assert list(found) == ["labels"]
    torch.testing.assert_close(found["labels"], labels(batch()))
    assert not build("labels", teachers=0).uses_pool


def test_kd_is_hintons_sum_over_labels_and_pool() -> None:
    options = {"name": "kd", "temperature": 3.0, "weight": 0.7, "label_weight": 0.3}
    found = losses(options)
    torch.testing.assert_close(found["kd"], 0.7 * soft(batch(), 3.0))
    torch.testing.assert_close(found["labels"], 0.3 * labels(batch()))
    assert build("kd").uses_pool


def test_a_list_is_the_sum_of_its_terms_and_nothing_else() -> None:
    found = losses([{"name": "kd", "weight": 2.0, "temperature": 2.0}, "labels"])
    assert list(found) == ["kd", "labels"]
    torch.testing.assert_close(found["kd"], 2 * soft(batch(), 2.0))
    torch.testing.assert_close(found["labels"], labels(batch()))
    assert list(losses(["kd"])) == ["kd"]


def test_one_loss_twice_is_two_terms() -> None:
    found = losses([{"name": "kd", "temperature": t, "weight": 1.0} for t in (1.0, 4.0)])
    assert list(found) == ["kd", "kd_2"]
    torch.testing.assert_close(found["kd_2"], soft(batch(), 4.0))


def test_a_term_of_ones_own_sees_labelled_rows_where_it_reads_labels() -> None:
    seen: list[int] = []

    def count(*tensors: Tensor) -> Tensor:
        seen.extend(len(tensor) for tensor in tensors)
        return tensors[0].sum()

    losses([Term("a", count, ("student.logits", "y")), Term("b", count, ("student.logits",))])
    assert seen == [ROWS, ROWS, ROWS + POOL]
    with pytest.raises(InputError, match=r"'c' reads 'student\.layer9', which is not recorded"):
        losses([Term("c", count, ("student.layer9",))])


def test_each_part_of_a_batch_may_have_losses_of_its_own() -> None:
    method = [
        {"name": "kd", "samples": "labeled", "temperature": 2.0, "weight": 1.0},
        {"name": "logit_mse", "samples": "pool", "weight": 1.0},
    ]
    data = limbeck.load_data(DataSpec(source="digits", labels=100))
    recipe = Recipe.model_validate({"method": method, "student": "limbeck:mlp?widths=4"})
    teacher = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    job = make_job(recipe, teachers=[teacher], data=data)
    found = make_method(job, job.build(0)).losses(batch(), CLOCK)
    whole = batch()
    first = {key: value[:ROWS] for key, value in whole.items()}
    torch.testing.assert_close(found["kd"], soft(first, 2.0))
    gap = whole["student.logits"][ROWS:] - whole["teacher.logits"][ROWS:]
    torch.testing.assert_close(found["logit_mse"], gap.square().sum(1).mean())
    assert not build([{"name": "kd", "samples": "labeled"}]).uses_pool
    with pytest.raises(InputError, match="'logit_mse' is for samples of the pool"):
        build(method)


def test_a_weight_of_zero_takes_the_term_away() -> None:
    assert list(losses({"name": "kd", "weight": 0.0})) == ["labels"]
    assert list(losses({"name": "kd", "label_weight": 0.0})) == ["kd"]
    assert not build({"name": "kd", "weight": 0.0}, teachers=0).needs_teacher
    with pytest.raises(InputError, match="every term of the method has weight 0"):
        build({"name": "kd", "weight": 0.0, "label_weight": 0.0})


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("kdd", r"unknown method 'kdd', did you mean 'kd'\?"),
        ({"name": "kd", "temprature": 2}, r"'temprature', did you mean 'temperature'\?"),
        ({"name": "kd", "weight": -1}, r"method\.weight.*greater than or equal to 0"),
        ({"temperature": 2}, "needs a 'name'"),
        ([], "list of terms is empty"),
        ([{"name": "kd", "weigth": 1}], r"'weigth', did you mean 'weight'\?"),
    ],
)
def test_what_cannot_be_meant_is_refused(method: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_method(method)


LOSSES = [name for name, entry in all_methods().items() if getattr(entry, "function", "")]


@pytest.mark.parametrize("name", LOSSES)
def test_no_loss_takes_a_weight_below_zero(name: str) -> None:
    spec = parse_method(name)
    numbers = [key for key, value in spec.model_dump().items() if type(value) is float]
    assert "weight" in numbers
    for option in numbers:
        with pytest.raises(InputError, match="0"):
            build({"name": name, option: -1.0})


@pytest.mark.parametrize("name", LOSSES)
def test_no_loss_takes_an_empty_batch(name: str) -> None:
    with pytest.raises(InputError, match="at least one sample"):
        build(name).losses({key: value[:0] for key, value in batch().items()}, CLOCK)


def test_a_method_that_needs_a_teacher_says_so() -> None:
    with pytest.raises(InputError, match=r"'kd' needs a teacher; give one with --teacher"):
        build("kd", teachers=0)


def test_what_is_written_down_is_read_back() -> None:
    for method in ("kd", ["kd", {"name": "labels", "weight": 0.5}]):
        spec = parse_method(method)
        assert parse_method(dump_method(spec)) == spec


@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_balance_gives_a_loss_on_logits_the_pull_of_the_labels(weight: float) -> None:
    options = {"name": "kd", "temperature": 9.0, "weight": weight, "balance": True}
    method, record = build({**options, "label_weight": 1.0}).train(), batch()
    found = method.losses(record, CLOCK)
    kd, ce = (
        torch.autograd.grad(found[name], record["student.logits"], retain_graph=True)[0].norm()
        for name in ("kd", "labels")
    )
    torch.testing.assert_close(kd, weight * ce)
    assert "terms.0.balance.scales" in method.state_dict()
    assert not any("balance" in name for name in build("kd").state_dict())


def test_balance_reaches_terms_with_modules_of_their_own() -> None:
    method, record = build([{"name": "ctkd", "balance": True}, "labels"]).train(), batch()
    found = method.losses(record, CLOCK)
    ctkd, ce = (
        torch.autograd.grad(value, record["student.logits"], retain_graph=True)[0].norm()
        for value in found.values()
    )
    torch.testing.assert_close(ctkd, 0.9 * ce)


def test_losses_that_relate_samples_are_known_by_name() -> None:
    assert build("dist").coupled == ["dist"]
    assert build(["kd", "labels"]).coupled == []


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import nowhere_at_all", r"'broken' of an installed package.*cannot be loaded: No module"),
        ("ENTRY = 3", r"'broken'.*no limbeck\.methods\.Entry but int"),
    ],
)
def test_a_broken_package_is_named_and_leaves_the_built_in_methods_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, message: str
) -> None:
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[limbeck.methods]\nbroken = broken_method:ENTRY\n")
    (tmp_path / "broken_method.py").write_text(source + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "broken_method", raising=False)
    all_methods.cache_clear()
    try:
        assert find_method("kd").summary
        with pytest.raises(InputError, match=message):
            find_method("broken")
    finally:
        all_methods.cache_clear()
