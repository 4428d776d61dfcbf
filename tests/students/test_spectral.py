"""Spectral students: the same function, scores, penalty, masks, and the smaller network."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from limbeck.errors import InputError, RunError
from limbeck.models.small import convnet, mlp
from limbeck.models.text import text
from limbeck.nn.spectral import gate_of, gated_layers
from limbeck.students import (
    SpectralPenalty,
    alive_nodes,
    export_dense,
    find_width,
    fit_targets,
    keep_share,
    mask_nodes,
    merge_parallel,
    node_scores,
    spectralize,
)


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randomized(model: nn.Module, seed: int = 0) -> nn.Module:
    """Every parameter and running statistic drawn, so that nothing is trivially zero or one."""
    generator = draws(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
        for name, buffer in model.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return model.double().eval()


class Residual(nn.Module):
    """Two branches that are added up, with a depthwise convolution on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.inner = nn.Sequential(nn.Conv2d(6, 5, 1), nn.BatchNorm2d(5), nn.ReLU())
        self.outer = nn.Sequential(nn.Conv2d(5, 6, 3, padding=1), nn.BatchNorm2d(6))
        self.depth = nn.Conv2d(6, 6, 3, groups=6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = torch.relu(x + self.outer(self.inner(x)))
        return self.head(torch.relu(self.depth(x)).mean((2, 3)))


def line(*kinds: nn.Module) -> nn.Sequential:
    return nn.Sequential(*kinds)


MODELS = {
    "mlp": (lambda: mlp(classes=3, shape=(5,), widths=(9, 7)), (4, 5)),
    "sigmoid": (lambda: line(nn.Linear(5, 8), nn.Sigmoid(), nn.Linear(8, 3)), (4, 5)),
    "convnet": (lambda: convnet(classes=3, in_channels=2, widths=(6, 8)), (3, 2, 8, 8)),
    "flatten": (
        lambda: line(nn.Conv2d(2, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(6 * 36, 3)),
        (3, 2, 8, 8),
    ),
    "conv1d": (
        lambda: line(
            nn.Conv1d(2, 6, 3), nn.ReLU(), nn.Conv1d(6, 4, 2), nn.Flatten(), nn.Linear(24, 3)
        ),
        (3, 2, 9),
    ),
    "conv3d": (
        lambda: line(nn.Conv3d(2, 6, 2), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3)),
        (3, 2, 3, 3, 3),
    ),
    "residual": (Residual, (3, 2, 6, 6)),
}


@pytest.mark.parametrize("form", ["gate", "bipartite"])
@pytest.mark.parametrize("bias", ["plain", "gated"])
@pytest.mark.parametrize("name", MODELS)
def test_the_cut_network_is_the_masked_one(name: str, bias: str, form: str) -> None:
    build, shape = MODELS[name]
    model = randomized(build())
    x = torch.randn(shape, generator=draws(1), dtype=torch.float64)
    spectral = spectralize(model, form=form, bias=bias)
    torch.testing.assert_close(spectral(x), model(x), atol=1e-12, rtol=0)
    with torch.no_grad():
        for layer in gated_layers(spectral).values():
            eigenvalues = gate_of(layer).eigenvalues
            eigenvalues.copy_(0.2 + torch.rand(len(eigenvalues), generator=draws(2)).double())
    alive = {
        path: torch.arange(len(scores)) % 3 != 1 for path, scores in node_scores(spectral).items()
    }
    small = export_dense(spectral, alive)
    mask_nodes(spectral, alive)
    torch.testing.assert_close(small(x), spectral(x), atol=1e-10, rtol=0)
    assert not gated_layers(small)
    size = {
        name: sum(p.numel() for p in m.parameters()) for name, m in (("s", small), ("b", model))
    }
    assert size["s"] < size["b"]


def test_bipartite_weights_have_the_sign_of_the_paper() -> None:
    layer = nn.Linear(3, 4)
    model = spectralize(line(layer, nn.ReLU(), nn.Linear(4, 2)), form="bipartite")
    basis = model[0].parametrizations.weight.original
    torch.testing.assert_close(basis, -layer.weight)
    with torch.no_grad():
        gate_of(model[0]).incoming.copy_(torch.tensor([1.0, 2.0, 3.0]))
    torch.testing.assert_close(model[0].weight, (torch.tensor([1.0, 2.0, 3.0]) - 1) * basis)


@pytest.mark.parametrize("width", [4, 7])
def test_a_spectral_convolution_scales_channels_not_columns(width: int) -> None:
    conv = nn.Conv2d(2, 4, 3, padding=1).double()
    model = spectralize(line(conv, nn.ReLU(), nn.Conv2d(4, 1, 1).double()))
    eigenvalues = torch.tensor([0.5, -2.0, 3.0, 0.1], dtype=torch.float64)
    with torch.no_grad():
        gate_of(model[0]).eigenvalues.copy_(eigenvalues)
    x = torch.randn(3, 2, width, width, generator=draws(), dtype=torch.float64)
    kernel = eigenvalues[:, None, None, None] * conv.weight
    expected = nn.functional.conv2d(x, kernel, conv.bias, padding=1)
    torch.testing.assert_close(model[0](x), expected, atol=1e-12, rtol=0)
    norms = conv.weight.flatten(1).norm(dim=1)
    torch.testing.assert_close(node_scores(model)["0"].double(), eigenvalues.abs() * norms)


def test_heads_and_hidden_units_of_a_text_encoder() -> None:
    model = randomized(text(classes=3, shape=(6,), vocabulary=11, width=8, layers=2, heads=4))
    tokens = torch.randint(1, 11, (5, 6), generator=draws())
    spectral = spectralize(model)
    torch.testing.assert_close(spectral(tokens), model(tokens))
    alive = {path: torch.arange(len(s)) != 1 for path, s in node_scores(spectral).items()}
    small = export_dense(spectral, alive)
    assert small.layers[0].attention.heads == 3
    assert small.layers[0].perceptron[0].out_features == 31
    mask_nodes(spectral, alive)
    torch.testing.assert_close(small(tokens), spectral(tokens), atol=1e-10, rtol=0)


def test_hidden_units_of_torchs_own_encoder_layer() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True)
    model = randomized(line(nn.Linear(4, 8), layer, nn.Linear(8, 3)))
    x = torch.randn(2, 5, 4, generator=draws(), dtype=torch.float64)
    spectral = spectralize(model)
    alive = {"1.linear1": torch.arange(12) < 5}
    small = export_dense(spectral, alive)
    assert small[1].linear1.out_features == 5
    mask_nodes(spectral, alive)
    torch.testing.assert_close(small(x), spectral(x), atol=1e-10, rtol=0)


def test_the_state_dict_keeps_eigenvalues_and_masks() -> None:
    model = spectralize(mlp(classes=2, shape=(4,), widths=6), bias="gated")
    mask_nodes(model, {"layer1.0": torch.arange(6) < 3})
    fresh = spectralize(mlp(classes=2, shape=(4,), widths=6), bias="gated")
    fresh.load_state_dict(model.state_dict())
    x = torch.randn(3, 4, generator=draws())
    torch.testing.assert_close(fresh(x), model(x))
    assert export_dense(fresh)[1][0].out_features == 3
    other = copy.deepcopy(model)
    with torch.no_grad():
        gate_of(other[1][0]).eigenvalues.zero_()
    assert other[1][0].bias.abs().max() == 0  # a copy's bias follows the copy's eigenvalues


def test_the_penalty_is_a_group_lasso() -> None:
    penalty = SpectralPenalty(mu_phi=0.02, mu_lambda=0.003)
    model = spectralize(mlp(classes=2, shape=(4,), widths=3))
    weight = model[1][0].weight.detach().clone()
    norms = weight.norm(dim=1)
    with torch.no_grad():
        eigenvalues = penalty.balanced(norms)
        gate_of(model[1][0]).eigenvalues.copy_(eigenvalues)
        model[1][0].parametrizations.weight.original.copy_(weight / eigenvalues[:, None])
    torch.testing.assert_close(penalty(model), penalty.least(norms).sum())
    (gradient,) = torch.autograd.grad(penalty(model), gate_of(model[1][0]).eigenvalues)
    torch.testing.assert_close(gradient, 2 * 0.003 * eigenvalues)


def test_scores_of_equal_size_stay_or_go_together() -> None:
    model = spectralize(line(nn.Linear(2, 4, bias=False), nn.ReLU(), nn.Linear(4, 1)))
    with torch.no_grad():
        model[0].parametrizations.weight.original.copy_(
            torch.tensor([[1.0, 0], [0.5, 0], [0, 0.5], [0.01, 0]])
        )
    assert alive_nodes(model, 0.5)["0"].tolist() == [True, False, False, False]
    assert alive_nodes(model, 0.49)["0"].tolist() == [True, True, True, False]
    with pytest.warns(UserWarning, match="loses all"):
        assert alive_nodes(model, 1.0)["0"].tolist() == [True, False, False, False]
    with torch.no_grad():
        gate_of(model[0]).eigenvalues.zero_()
    with pytest.warns(UserWarning, match="collapsed"):
        assert alive_nodes(model)["0"].sum() == 1


def test_a_share_of_all_nodes_goes_smallest_first() -> None:
    scores = {"a": torch.tensor([1.0, 5.0]), "b": torch.tensor([2.0, 0.5])}
    kept = keep_share(scores, 50)
    assert [mask.tolist() for mask in kept.values()] == [[False, True], [True, False]]
    for percent in (0.3, -1, 101):
        with pytest.raises(InputError, match="percent"):
            keep_share(scores, percent)


def planted(useful: int, total: int) -> nn.Module:
    """A network of which only the first nodes say anything."""
    model = line(nn.Linear(5, total), nn.ReLU(), nn.Linear(total, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.randn(total, 5, generator=draws()))
        model[0].weight[useful:] *= 1e-3
        model[2].weight.copy_(torch.ones(1, total))
    return model


def test_the_knee_is_found() -> None:
    model = planted(11, 40)
    x = torch.randn(200, 5, generator=draws(3))
    target = model(x).detach()
    width = find_width(
        spectralize(model), lambda m: float((m(x) - target).square().mean()), tolerance=1e-4
    )
    assert width.nodes == 11
    assert width.alive["0"].nonzero().flatten().tolist() == list(range(11))
    assert width.jump > 2
    assert width.table == [{"layer": "0", "nodes": 40, "alive": 11}]
    assert len(width.ramp) < 20  # of 41


def test_the_ramp_runs_in_evaluation_mode_and_leaves_the_model_as_it_was() -> None:
    model = line(nn.Linear(5, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1))
    spectral = spectralize(model).train()
    before = {key: value.clone() for key, value in spectral.state_dict().items()}
    x = torch.randn(50, 5, generator=draws())
    with torch.no_grad():
        target = copy.deepcopy(spectral).eval()(x)
    width = find_width(spectral, lambda m: float((m(x) - target).square().mean()))
    assert width.ramp[8] == 0
    assert spectral.training
    assert all(torch.equal(before[key], value) for key, value in spectral.state_dict().items())


def test_a_metric_that_does_not_see_the_nodes_is_refused() -> None:
    with pytest.raises(InputError, match="smaller mu"):
        find_width(spectralize(planted(2, 4)), lambda model: 1.0)


def test_parallel_nodes_become_one() -> None:
    model = line(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)).double()
    with torch.no_grad():
        model[0].weight[1] = 3 * model[0].weight[0]
        model[0].bias[1] = 3 * model[0].bias[0]
        model[0].weight[4] *= 1e-6
        model[0].bias[4] *= 1e-6
    merged = merge_parallel(model)
    assert merged[0].out_features == 3
    x = torch.randn(20, 3, generator=draws(), dtype=torch.float64)
    torch.testing.assert_close(merged(x), model(x), atol=1e-5, rtol=0)


def test_tanh_nodes_are_not_merged() -> None:
    model = line(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
    assert merge_parallel(model)[0].out_features == 5


def refused(model: nn.Module, words: str, **options: object) -> None:
    with pytest.raises(InputError, match=words):
        spectralize(model, **options)


def test_bad_input_is_named() -> None:
    refused(line(parametrizations.weight_norm(nn.Linear(2, 3)), nn.Linear(3, 1)), "parametrization")
    broken = line(nn.Linear(2, 3), nn.Linear(3, 1))
    with torch.no_grad():
        broken[0].weight[0, 0] = float("nan")
    refused(broken, "'0' are not all finite")
    refused(line(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)), "did you mean", layers=["00"])
    refused(line(nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 1)), "LayerNorm")
    refused(line(nn.Linear(2, 3)), "output of the model")
    refused(broken, "form is", form="other")
    grouped = line(nn.Conv2d(4, 8, 1, groups=2), nn.ReLU(), nn.Conv2d(8, 2, 1))
    refused(grouped, "grouped", layers=["0"])
    tied = line(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3), nn.Linear(3, 1))
    tied[2].weight = tied[0].weight
    refused(tied, "shares", layers=["0"])
    with pytest.raises(InputError, match="0 or more"):
        SpectralPenalty(-1.0)
    with pytest.raises(InputError, match="no eigenvalues"):
        SpectralPenalty()(nn.Linear(2, 2))


def test_a_graph_that_branches_on_its_input_is_refused() -> None:
    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    refused(Branching(), "torch.fx")


def test_the_output_layer_can_be_asked_for_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="output layer"):
        model = spectralize(line(nn.Linear(2, 3)), ["0"])
    assert gated_layers(model)
    with pytest.raises(InputError, match="no nodes"):
        export_dense(model)


def test_trained_input_eigenvalues_forbid_cutting() -> None:
    model = line(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    with pytest.raises(InputError, match="train_in"):
        node_scores(spectralize(model, form="bipartite", train_in=True))


def test_constants_into_a_padded_convolution_are_refused() -> None:
    model = line(nn.Conv2d(1, 4, 3), nn.Sigmoid(), nn.Conv2d(4, 1, 3, padding=1))
    spectral = spectralize(model, bias="gated")
    with pytest.raises(InputError, match="pads with zeros"):
        export_dense(spectral, {"0": torch.arange(4) < 2})


def test_eigenvalues_alone_can_be_trained() -> None:
    model = spectralize(mlp(classes=2, shape=(4,), widths=6))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("eigenvalues" in name)
    model(torch.randn(2, 4, generator=draws())).sum().backward()
    assert gate_of(model[1][0]).eigenvalues.grad.abs().sum() > 0


def test_a_short_training_reaches_its_targets_and_refuses_others() -> None:
    torch.manual_seed(0)
    model = mlp(classes=1, shape=(3,), widths=16)
    x = torch.randn(200, 3, generator=draws())
    y = x[:, :1] - x[:, 1:2]
    before = float((model(x) - y).square().mean().detach())
    fit_targets(model, x, y, epochs=60, batch=50)
    assert float((model(x) - y).square().mean().detach()) < 0.05 * before
    with pytest.raises(InputError, match="same number"):
        fit_targets(model, x, y[:5])
    with pytest.raises(RunError, match="lower lr"):
        fit_targets(model, x, y * float("inf"), epochs=1)
