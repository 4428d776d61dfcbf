"""Batch ensembles of whole networks: members, their mean, delivery, and what is refused."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import limbeck
from limbeck.errors import InputError
from limbeck.models.small import convnet, mlp
from limbeck.nn.batch_ensemble import MemberLayer, MemberNorm
from limbeck.students import BatchEnsemble, batch_ensemble


def network() -> nn.Module:
    torch.manual_seed(0)
    return convnet(classes=5, in_channels=2, widths=(4, 6))


X = torch.rand(7, 2, 8, 8, generator=torch.Generator().manual_seed(0))


def test_outputs_are_those_of_the_members_mean() -> None:
    student = batch_ensemble(network(), members=3).eval()
    with torch.no_grad():
        each = student.members(X)
        assert each.shape == (3, 7, 5)
        torch.testing.assert_close(student(X).exp(), each.softmax(-1).mean(0))
        for number in range(3):
            plain = student.member(number)
            assert not any(isinstance(part, MemberLayer) for part in plain.modules())
            assert plain.state_dict().keys() == network().state_dict().keys()
            torch.testing.assert_close(plain(X), each[number], atol=1e-5, rtol=1e-5)
    assert (each[0] - each[1]).abs().max() > 0.01


def test_model_is_left_as_it_was_and_seeds_draw_other_factors() -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    one, other = batch_ensemble(model), batch_ensemble(model, seed=1)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    again = batch_ensemble(model)
    assert torch.equal(one.network.linear.alpha, again.network.linear.alpha)
    assert not torch.equal(one.network.linear.alpha, other.network.linear.alpha)
    assert len(one) == 4


def test_members_that_start_as_one_merge_into_it() -> None:
    model = network().eval()
    student = batch_ensemble(model, members=2, merge=True).eval()
    with torch.no_grad():
        torch.testing.assert_close(student(X), model(X).log_softmax(-1))
        torch.testing.assert_close(student.merged()(X), model(X))
        assert student.pull() == 0
        student.network.linear.alpha += torch.tensor([[0.5], [-0.5]])
        torch.testing.assert_close(student.merged()(X), model(X))
        assert float(student.pull()) == pytest.approx(12 * 0.25 / 4)
    with pytest.raises(InputError, match="build the student with merge=True"):
        batch_ensemble(model).merged()


def test_norms_of_their_own() -> None:
    student = batch_ensemble(network(), members=2, norm="per_member")
    norms = [part for part in student.modules() if isinstance(part, MemberNorm)]
    assert len(norms) == 2
    student.train()(X)
    student.eval()
    with torch.no_grad():
        each = student.members(X)
        torch.testing.assert_close(student.member(1)(X), each[1], atol=1e-5, rtol=1e-5)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(4, 4), nn.Linear(4, 4)
        self.other.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.other(self.one(x))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Tied(), "'one' and 'other' share one weight"),
        (nn.Sequential(nn.ReLU()), "neither a linear layer nor a convolution"),
        (nn.Sequential(nn.Linear(4, 4), nn.MultiheadAttention(4, 2)), "reads the weights"),
        (nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect")), "'reflect'"),
    ],
)
def test_what_cannot_be_shared_is_refused(model: nn.Module, words: str) -> None:
    with pytest.raises(InputError, match=words):
        batch_ensemble(model)


def test_numbers_are_checked() -> None:
    with pytest.raises(InputError, match="two members or more, not 1"):
        batch_ensemble(network(), members=1)
    with pytest.raises(InputError, match="no member 4 among 4"):
        batch_ensemble(network()).member(4)
    with pytest.raises(InputError, match="norm is 'own'"):
        batch_ensemble(network(), norm="own")  # type: ignore[arg-type]


def test_a_batch_ensemble_by_name_trains_and_comes_back(tmp_path: Path) -> None:
    result = limbeck.train(
        "limbeck:convnet?widths=6,8&members=2",
        "digits",
        training={"epochs": 1, "device": "cpu"},
        out=tmp_path / "run",
        progress=False,
    )
    assert isinstance(result.student, BatchEnsemble)
    loaded = limbeck.load(tmp_path / "run")
    x = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(loaded(x), result.student(x))


def test_perceptrons_have_one_factor_a_unit() -> None:
    student = batch_ensemble(mlp(classes=3, shape=(4,), widths=(8,)), members=2)
    plain = sum(p.numel() for p in mlp(classes=3, shape=(4,), widths=(8,)).parameters())
    ours = sum(p.numel() for p in student.parameters())
    # Factors of 4 + 8 and 8 + 3 units, and one more set of biases.
    assert ours == plain + 2 * (4 + 8 + 8 + 3) + (8 + 3)
