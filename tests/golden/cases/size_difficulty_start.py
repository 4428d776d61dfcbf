"""Spectral students, effective logits and kernels, copy or average: by routes of their own."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

import limbeck.functional as F
from cases import Arrays, Close
from limbeck.nn.spectral import gate_of
from limbeck.students import (
    SpectralPenalty,
    alive_nodes,
    export_dense,
    keep_share,
    mask_nodes,
    node_scores,
    spectralize,
)
from limbeck.theory import (
    KernelStudent,
    Tangent,
    best_groups,
    copy_average_loss,
    copying_loss,
    data_inefficiency,
    interaction,
    one_neuron,
    oracle_angle,
    population_loss,
    risk_bound,
    weight_norms,
)


def tensor(arrays: Arrays, name: str) -> Tensor:
    return torch.from_numpy(np.array(arrays[name]))


def relative(name: str, ours: object, stored: np.ndarray, tolerance: float) -> Close:
    return Close(name, ours, stored, tolerance * (1 + np.abs(stored)))


def linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer


def bipartite(arrays: Arrays, case: str, incoming: Tensor) -> nn.Sequential:
    """phi with both sets of eigenvalues, followed by what reads it."""
    basis, outgoing = tensor(arrays, f"{case}_phi"), tensor(arrays, f"{case}_lam_out")
    reader = linear(torch.eye(len(basis), dtype=basis.dtype))
    model = spectralize(nn.Sequential(linear(basis), reader), ["0"], form="bipartite")
    gate = gate_of(model[0])
    with torch.no_grad():
        model[0].parametrizations.weight.original.copy_(basis)
        gate.eigenvalues.copy_(outgoing)
        gate.incoming.copy_(incoming)
    return model


def spectral_kernel(arrays: Arrays) -> Iterator[Close]:
    for case in sorted({name.split("_")[0] for name in arrays}):
        incoming, x = tensor(arrays, f"{case}_lam_in"), tensor(arrays, f"{case}_x")
        model = bipartite(arrays, case, incoming)
        weight, outgoing = model[0].weight.detach(), tensor(arrays, f"{case}_lam_out")
        corner = weight.new_zeros(len(incoming), len(outgoing))
        adjacency = torch.cat(
            [
                torch.cat([incoming.diag(), corner], 1),
                torch.cat([weight, outgoing.diag()], 1),
            ]
        )
        values = torch.linalg.eigvals(adjacency).real.sort().values
        yield Close(f"{case} W", weight, arrays[f"{case}_W"], 1e-12)
        yield Close(f"{case} A", adjacency, arrays[f"{case}_A"], 1e-12)
        yield Close(f"{case} eigenvalues", values, arrays[f"{case}_eig_sorted"], 1e-12)
        yield Close(f"{case} y", model(x), arrays[f"{case}_y"], 1e-12)
        model = bipartite(arrays, case, torch.zeros_like(incoming))
        yield Close(f"{case} score", node_scores(model)["0"], arrays[f"{case}_score"], 1e-12)
        mask_nodes(model, {"0": tensor(arrays, f"{case}_mask") != 0})
        yield Close(f"{case} masked", model(x), arrays[f"{case}_y_lin0_masked"], 1e-12)


def group_lasso(arrays: Arrays) -> Iterator[Close]:
    norms = tensor(arrays, "W").norm(dim=1)
    for row, (mu_phi, mu_lambda) in enumerate(arrays["mu"]):
        penalty = SpectralPenalty(float(mu_phi), float(mu_lambda))
        least, balanced = arrays["min_penalty"][row], arrays["argmin_abs_lambda"][row]
        yield Close(f"penalty {row}", penalty.least(norms), least, 1e-10 * least)
        yield Close(f"eigenvalue {row}", penalty.balanced(norms), balanced, 1e-5 * balanced)


def gated_mlp(arrays: Arrays) -> nn.Sequential:
    """The network of the official gates, one after every layer, bias included."""
    weights = [tensor(arrays, f"base_{place}_weight") for place in (0, 2, 4)]
    biases = [
        tensor(arrays, name) if (name := f"base_{p}_bias") in arrays else None for p in (0, 2, 4)
    ]
    layers = [linear(weight, bias) for weight, bias in zip(weights, biases, strict=True)]
    plain = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.Tanh(), layers[2])
    plain.append(linear(torch.eye(len(weights[2]), dtype=weights[2].dtype)))
    model = spectralize(plain, ["0", "2", "4"], bias="gated")
    for number, place in enumerate((0, 2, 4)):
        with torch.no_grad():
            gate_of(model[place]).eigenvalues.copy_(tensor(arrays, f"lam{number}"))
    return model


def official_gate(arrays: Arrays) -> Iterator[Close]:
    x, model = tensor(arrays, "x"), gated_mlp(arrays)
    yield Close("y", model(x), arrays["y"], 1e-12)
    sizes = {str(2 * number): tensor(arrays, f"lam{number}").abs() for number in range(3)}
    for percent in (10, 30, 50, 75):
        kept = keep_share(sizes, percent)
        for number in range(3):
            stored = arrays[f"mask{percent}_{number}"] != 0
            yield Close(f"mask {percent} {number}", kept[str(2 * number)], stored)
        mask_nodes(model, kept)
        yield Close(f"pruned {percent}", model(x), arrays[f"y_pruned{percent}"], 1e-12)


def export(arrays: Arrays) -> Iterator[Close]:
    x = tensor(arrays, "x")
    for bias in ("gated", "plain"):
        plain = nn.Sequential(
            linear(tensor(arrays, "phi"), tensor(arrays, "bias")),
            nn.ReLU(),
            linear(tensor(arrays, "V"), tensor(arrays, "c")),
        )
        model = spectralize(plain, bias=bias)
        with torch.no_grad():
            gate_of(model[0]).eigenvalues.copy_(tensor(arrays, "lam"))
        yield Close(f"full, {bias}", model(x), arrays[f"y_full_{bias}_bias"], 1e-12)
        if bias == "plain":
            alive = alive_nodes(model, float(arrays["rel_threshold"]))
            yield Close("kept", alive["0"].nonzero().flatten(), arrays["keep"])
        small = export_dense(model, alive) if bias == "plain" else export_kept(model, arrays)
        yield Close(f"cut, {bias}", small(x), arrays[f"y_pruned_{bias}_bias"], 1e-12)


def export_kept(model: nn.Module, arrays: Arrays) -> nn.Module:
    kept = torch.zeros(len(arrays["lam"]), dtype=torch.bool)
    kept[tensor(arrays, "keep")] = True
    return export_dense(model, {"0": kept})


def effective_binary(arrays: Arrays) -> Iterator[Close]:
    z = F.effective_logits(
        tensor(arrays, "z_t"),
        tensor(arrays, "y"),
        soft_ratio=tensor(arrays, "rho"),
        temperature=tensor(arrays, "T"),
    )
    yield relative("z_eff", z, arrays["z_eff"], 1e-9)


def effective_multiclass(arrays: Arrays) -> Iterator[Close]:
    for case in ("C2", "C3", "C5"):
        z = F.effective_logits(
            tensor(arrays, f"{case}_z_t"),
            tensor(arrays, f"{case}_y").long(),
            soft_ratio=tensor(arrays, f"{case}_rho"),
            temperature=tensor(arrays, f"{case}_T"),
        )
        yield relative(case, z, arrays[f"{case}_z_eff_mean0"], 1e-9)


def kernel(arrays: Arrays) -> Iterator[Close]:
    parts: list[nn.Module] = []
    for place in (1, 2, 3):
        parts += [linear(tensor(arrays, f"W{place}"), tensor(arrays, f"b{place}")), nn.Tanh()]
    tangent = Tangent(nn.Sequential(*parts[:-1]))
    x, held_out = tensor(arrays, "X"), tensor(arrays, "X_test")
    yield Close("f_X", tangent.outputs(x), arrays["f_X"], 1e-10)
    yield Close("f_X_test", tangent.outputs(held_out), arrays["f_X_test"], 1e-10)
    yield Close("jacobian", tangent.jacobian(x), arrays["jacobian_X"], 1e-10)
    yield Close("XX", tangent.kernel(x, full=True), arrays["ntk_XX"], 1e-10)
    yield Close("SX", tangent.kernel(held_out, x, full=True), arrays["ntk_SX"], 1e-10)


def linear_student(arrays: Arrays) -> Iterator[Close]:
    train, test = tensor(arrays, "Phi_train"), tensor(arrays, "Phi_test")
    oracle, z = tensor(arrays, "w_star"), tensor(arrays, "z")
    theta, values = (train @ train.T)[None], test @ oracle
    norms = weight_norms(theta, z[:, None], ridge=0.0)
    stored = arrays["prefix_norms"]
    yield Close("norms", norms, stored, 1e-10 * stored)
    yield Close("I", data_inefficiency(norms.log()), arrays["I_single_order"], 1e-9)
    for row, n in enumerate(arrays["n_list"].tolist()):
        student = KernelStudent(theta[:, :n, :n], ridge=0.0)
        predicted = student.predict(z[:n, None], (test @ train[:n].T)[None])[:, 0]
        norm, longest = float(norms[n - 1]), float(oracle.norm())
        risk = float((predicted * values < 0).double().mean())
        bound = risk_bound(norm, longest, values, test.square().sum(1))
        yield Close(f"predictions {n}", predicted, arrays["pred"][row], 1e-9)
        yield Close(f"angle {n}", oracle_angle(norm, longest), arrays["alpha"][row], 1e-7)
        yield Close(f"risk {n}", risk, arrays["risk"][row], 1e-12)
        yield Close(f"bound {n}", bound, arrays["bound"][row], 1e-12)


def interactions(arrays: Arrays) -> Iterator[Close]:
    r1, r2, u = (tensor(arrays, name) for name in ("r1", "r2", "u"))
    for activation in ("erf", "relu", "tanh", "softplus", "sigmoid", "gelu"):
        ours = interaction(r1, r2, u, activation=activation)
        yield Close(activation, ours, arrays[activation], 1e-10)


def losses(arrays: Arrays) -> Iterator[Close]:
    for case in sorted({name.split("_")[0] for name in arrays}):
        for activation in ("erf", "relu"):
            a, w = (tensor(arrays, f"{case}_{name}").requires_grad_() for name in "aW")
            b, v = tensor(arrays, f"{case}_b"), tensor(arrays, f"{case}_V")
            loss = population_loss(a, w, b, v, activation=activation)
            gradients = torch.autograd.grad(loss, (a, w))
            key = f"{case}_{activation}"
            yield Close(f"{key} loss", loss.detach(), arrays[f"{key}_loss_quad"], 1e-9)
            error = 5 * arrays[f"{key}_mc_stderr"]
            yield Close(f"{key} Monte Carlo", loss.detach(), arrays[f"{key}_loss_mc"], error)
            for name, ours in zip("aW", gradients, strict=True):
                error = 5 * arrays[f"{key}_grad_{name}_se"]
                yield Close(f"{key} gradient {name}", ours, arrays[f"{key}_grad_{name}_mc"], error)


def best_neuron(arrays: Arrays) -> Iterator[Close]:
    for row, k in enumerate(arrays["k"].tolist()):
        erf, relu = one_neuron(k), one_neuron(k, activation="relu")
        yield Close(f"erf loss {k}", erf.loss, arrays["erf_loss"][row], 1e-10)
        yield Close(f"erf a {k}", erf.outgoing, arrays["erf_a"][row], 1e-4)
        yield Close(f"erf r {k}", erf.length, arrays["erf_r"][row], 1e-5)
        yield Close(f"relu loss {k}", relu.loss, arrays["relu_loss"][row], 1e-10)
        yield Close(f"relu a r {k}", relu.outgoing, arrays["relu_a_times_r"][row], 1e-4)


def copy_average(arrays: Arrays) -> Iterator[Close]:
    b, v = torch.ones(6, dtype=torch.float64), torch.eye(6, dtype=torch.float64)
    for row, groups in enumerate(((1, 1, 4), (1, 2, 3), (2, 2, 2))):
        a, w = (tensor(arrays, name)[row].requires_grad_() for name in ("a", "W"))
        loss = population_loss(a, w, b, v)
        stored = arrays["loss_quad"][row]
        yield Close(f"loss {groups}", loss.detach(), stored, 1e-10)
        yield Close(f"sum {groups}", copy_average_loss(groups), stored, 1e-10)
        for gradient in torch.autograd.grad(loss, (a, w)):
            yield Close(f"gradient {groups}", gradient, np.zeros(gradient.shape), 1e-10)


def gradient_flow(arrays: Arrays) -> Iterator[Close]:
    for row, (k, n) in enumerate(zip(arrays["k"].tolist(), arrays["n"].tolist(), strict=True)):
        average = copy_average_loss(best_groups(k, n))
        smaller = min(average, copying_loss(k, n))
        yield Close(f"average {k} {n}", average, arrays["copy_average_loss"][row], 1e-10)
        yield Close(f"best {k} {n}", smaller, arrays["best_loss"][row], 1e-7)


FAMILIES = {
    re.escape(stem): family
    for stem, family in {
        "p1_spectral_kernel": spectral_kernel,
        "p1_group_lasso": group_lasso,
        "p1_official_torch_gate": official_gate,
        "p1_export": export,
        "p2_effective_logits_binary": effective_binary,
        "p2_effective_logits_multiclass": effective_multiclass,
        "p2_ntk_tanh_mlp": kernel,
        "p2_linear_student": linear_student,
        "p3_interaction": interactions,
        "p3_population_loss": losses,
        "p3_one_neuron": best_neuron,
        "p3_copy_average": copy_average,
        "p3_gradient_flow": gradient_flow,
    }.items()
}
