"""Starts from a teacher's weights: exact where they can be, ordered as they should be, refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from limbeck.errors import InputError
from limbeck.models.small import convnet, mlp
from limbeck.models.text import text
from limbeck.students import start_from


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def built(build: object, seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build()


def trained(width: int = 32) -> tuple[nn.Module, torch.Tensor]:
    """A network that has learned a smooth function with many redundant nodes."""
    model = built(lambda: mlp(classes=2, shape=(6,), widths=(width,)), 0)
    x = torch.randn(600, 6, generator=draws())
    y = torch.stack([x[:, 0] * x[:, 1], torch.sin(2 * x[:, 2]) + x[:, 3]], 1)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(250):
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
    return model, x


TEACHER, SAMPLES = trained()


def student(width: int, seed: int = 1) -> nn.Module:
    return built(lambda: mlp(classes=2, shape=(6,), widths=(width,)), seed)


def test_all_starts_beat_the_random_one() -> None:
    found = start_from(TEACHER, student(8), x=SAMPLES)
    losses = found.losses
    assert set(losses) == {"none", "copy", "copy-average", "cluster"}
    assert max(losses[name] for name in losses if name != "none") < 0.5 * losses["none"]
    assert losses[found.strategy] == min(losses.values())
    with torch.no_grad():
        held_out = SAMPLES[:120]
        again = (found.student(held_out) - TEACHER(held_out)).square().mean()
    assert float(again) == pytest.approx(losses[found.strategy], rel=1e-5)


@pytest.mark.parametrize("strategy", ["copy", "copy-average", "cluster"])
@pytest.mark.parametrize("width", [32, 40])
def test_a_student_as_wide_computes_the_teachers_function(strategy: str, width: int) -> None:
    found = start_from(TEACHER, student(width), strategy, x=SAMPLES)
    assert found.losses[strategy] < 1e-10
    assert found.student[1][0].out_features == width


def test_the_copies_are_the_most_important_nodes() -> None:
    teacher = mlp(classes=1, shape=(4,), widths=6)
    with torch.no_grad():
        teacher[1][0].weight.copy_(torch.eye(6, 4))
        teacher[1][0].bias.copy_(torch.tensor([0.0, 0, 0, 0, 5, 5]))
        teacher[2].weight.copy_(torch.tensor([[0.0, 3, 0, 2, 1e-3, 1e-3]]))
    x = torch.randn(200, 4, generator=draws())
    small = mlp(classes=1, shape=(4,), widths=2)
    copied = start_from(teacher, small, "copy", x=x).student
    assert torch.equal(copied[1][0].weight, torch.eye(4)[[1, 3]])
    torch.testing.assert_close(copied[2].weight, torch.tensor([[3.0, 2.0]]), atol=0.05, rtol=0)
    averaged = start_from(teacher, small, "copy-average", x=x).student
    torch.testing.assert_close(averaged[1][0].weight[0], torch.eye(4)[1])
    assert averaged[1][0].weight[1, 3] > 0.9  # the mean by importance, which node 3 has


def test_twins_are_clustered() -> None:
    teacher = built(lambda: mlp(classes=2, shape=(4,), widths=6), 0)
    with torch.no_grad():
        for parameter in (teacher[1][0].weight, teacher[1][0].bias):
            parameter[3:] = parameter[:3]
        teacher[2].weight.copy_(torch.tensor([[5.0, 1, 1, 5, 1, 1], [5, -1, 1, 5, -1, 2]]))
    x = torch.randn(300, 4, generator=draws())
    small = built(lambda: mlp(classes=2, shape=(4,), widths=3), 1)
    found = start_from(teacher, small, x=x)
    assert found.strategy == "cluster"
    assert found.losses["cluster"] < 1e-5 < 1e-2 < found.losses["copy"]


def test_convolutions_with_batch_normalization() -> None:
    teacher = built(lambda: convnet(classes=3, in_channels=1, widths=(12, 16)), 0)
    x = torch.randn(120, 1, 10, 10, generator=draws())
    for _ in range(30):
        teacher(x)  # running statistics
    small = built(lambda: convnet(classes=3, in_channels=1, widths=(6, 8)), 1)
    before = {name: value.clone() for name, value in small.state_dict().items()}
    found = start_from(teacher, small, x=x)
    assert max(v for k, v in found.losses.items() if k != "none") < 0.5 * found.losses["none"]
    assert all(torch.equal(before[name], value) for name, value in small.state_dict().items())
    assert [p.shape for p in found.student.parameters()] == [p.shape for p in small.parameters()]


def test_feed_forward_layers_of_transformers() -> None:
    def encoder(hidden: int, seed: int) -> nn.Module:
        layer = nn.TransformerEncoderLayer(8, 2, hidden, dropout=0.0, batch_first=True)
        return nn.Sequential(nn.Linear(4, 8), layer, nn.Linear(8, 3))

    teacher = built(lambda: encoder(16, 0), 0)
    x = torch.randn(64, 5, 4, generator=draws())
    small = built(lambda: encoder(6, 1), 1)
    found = start_from(teacher, small, x=x)
    assert found.losses[found.strategy] < 0.2 * found.losses["none"]
    assert torch.backends.mha.get_fastpath_enabled()
    texts = built(lambda: text(classes=3, shape=(6,), vocabulary=9, width=8, layers=1), 0)
    tokens = torch.randint(1, 9, (40, 6), generator=draws())
    same = start_from(texts, texts, "copy", x=tokens)
    assert same.losses["copy"] < 1e-12


def test_bad_input() -> None:
    x = SAMPLES
    with pytest.raises(InputError, match="strategy is"):
        start_from(TEACHER, student(4), "random", x=x)
    with pytest.raises(InputError, match="same structure"):
        start_from(TEACHER, mlp(classes=2, shape=(6,), widths=(4, 4)), x=x)
    with pytest.raises(InputError, match="width 3"):
        start_from(TEACHER, mlp(classes=3, shape=(6,), widths=4), "copy", x=x)
    with pytest.raises(InputError, match="no hidden nodes"):
        start_from(nn.Linear(2, 2), nn.Linear(2, 2), x=x)
    with pytest.raises(InputError, match="needs samples"):
        start_from(TEACHER, student(4), x=x[:1])
