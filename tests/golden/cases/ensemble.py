"""Several teachers: weights in gradient space, and a batch ensemble's layers, inputs, measures."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

import limbeck.functional as F
from cases import Arrays, Close, Family


def close(name: str, ours: object, stored: np.ndarray, tolerance: float) -> Close:
    return Close(name, ours, stored, tolerance * (1 + np.abs(stored)))


def tensor(arrays: Arrays, name: str) -> Tensor:
    return torch.from_numpy(np.array(arrays[name], dtype=np.float64))


def each_case(family: Callable[[str, Arrays], Iterator[Close]]) -> Family:
    """`family` for every `cK_` of a file."""

    def run(arrays: Arrays) -> Iterator[Close]:
        for case in sorted({name.split("_")[0] for name in arrays if re.match(r"c\d+_", name)}):
            stored = {
                name.removeprefix(f"{case}_"): value
                for name, value in arrays.items()
                if name.startswith(f"{case}_")
            }
            yield from family(case, stored)

    return run


def objective(gram: np.ndarray, alpha: np.ndarray) -> float:
    return 0.5 * float(alpha @ gram @ alpha)


def quadratic(arrays: Arrays) -> Iterator[Close]:
    names = ("G", "M", "C", "alpha", "objective")
    for place, (gram, count, cap, alpha, least) in enumerate(
        zip(*(arrays[name] for name in names), strict=True)
    ):
        gram = gram[:count, :count]
        ours = F.min_norm_weights(gram, tolerance=float(cap))
        allowed = 1e-8 * (least + np.trace(gram) / count * 1e-3)
        yield Close(f"objective {place}", objective(gram, ours), least, allowed)
        yield close(f"alpha {place}", ours, alpha[:count], 1e-5)


def quadratic_edge(arrays: Arrays) -> Iterator[Close]:
    for name in sorted({key.rsplit("_", 1)[0] for key in arrays}):
        gram = arrays[f"{name}_g"] @ arrays[f"{name}_g"].T
        ours = F.min_norm_weights(gram, tolerance=float(arrays[f"{name}_C"]))
        yield close(f"{name} alpha", ours, arrays[f"{name}_alpha"], 1e-4)
        least = arrays[f"{name}_objective"]
        yield close(f"{name} objective", objective(gram, ours), least, 1e-8)


def official(arrays: Arrays) -> Iterator[Close]:
    """Space of the batch means; the published function stops early where gradients are small."""
    yield from each_case(official_case)(arrays)
    gram = F.gradient_gram(tensor(arrays, "degenerate_vecs"), scope="batch_mean")
    ours = F.gram_weights(gram, tolerance=float(arrays["degenerate_C"]))
    yield close("degenerate", ours, arrays["degenerate_weights_exact"], 1e-6)


def official_case(case: str, arrays: Arrays) -> Iterator[Close]:
    gram = F.gradient_gram(tensor(arrays, "vecs"), scope="batch_mean")
    normalize, cap = bool(arrays["is_norm"]), float(arrays["C"])
    ours = F.gram_weights(gram, tolerance=cap, normalize=normalize)
    yield close(f"{case} exact", ours, arrays["weights_exact"], 1e-6)
    yield close(f"{case} official", ours, arrays["weights_official"], 5e-5)
    if not normalize:
        yield close(f"{case} alpha", ours, arrays["alpha_exact"], 1e-6)


def space(case: str, arrays: Arrays) -> Iterator[Close]:
    student, teachers = tensor(arrays, "logits_s").requires_grad_(), tensor(arrays, "logits_t")
    temperature, cap = float(arrays["T"]), float(arrays["C"])
    losses = F.ensemble_losses(student, teachers, temperature=temperature)
    gradients = F.ensemble_gradients(student, teachers, temperature=temperature)
    yield close(f"{case} losses", losses, arrays["losses"], 1e-10)
    yield close(f"{case} g", gradients, arrays["g"], 1e-10)
    for scope in ("batch", "batch_mean", "sample"):
        gram = F.gradient_gram(gradients, scope=scope)
        yield close(f"{case} gram {scope}", gram, arrays[f"gram_{scope}"], 1e-10)
        ours = F.ensemble_weights(
            student, list(teachers), temperature=temperature, tolerance=cap, scope=scope
        )
        yield from weights(f"{case} {scope}", gram, ours, arrays[f"alpha_{scope}"])
    alpha = tensor(arrays, "alpha_batch")
    labels = nn.functional.cross_entropy(student, torch.from_numpy(arrays["y"]))
    total = float(arrays["gamma"]) * labels + float(arrays["a"]) * (alpha * losses).sum()
    yield close(f"{case} total", total, arrays["loss_total"], 1e-10)
    (gradient,) = torch.autograd.grad(total, student)
    yield close(f"{case} grad", gradient, arrays["grad_logits_s"], 1e-10)


def weights(name: str, gram: Tensor, ours: Tensor, stored: np.ndarray) -> Iterator[Close]:
    """Objectives everywhere, the weights themselves where no others do as well."""
    grams = gram.numpy().reshape(-1, *gram.shape[-2:])
    rows = ours.numpy().reshape(len(grams), -1), stored.reshape(len(grams), -1)
    for row, (matrix, alpha, best) in enumerate(zip(grams, *rows, strict=True)):
        scale = np.trace(matrix) / len(matrix)
        allowed = 1e-8 * (objective(matrix, best) + 1e-3 * scale)
        yield Close(
            f"{name} {row} objective", objective(matrix, alpha), objective(matrix, best), allowed
        )
        # Differences of weights sum to 0; along which of them does the objective not change?
        apart = np.eye(len(matrix))[:, 1:] - 1 / len(matrix)
        if np.linalg.eigvalsh(apart.T @ matrix @ apart)[0] > 1e-6 * scale:
            yield close(f"{name} {row} alpha", alpha, best, 1e-6)


def features(case: str, arrays: Arrays) -> Iterator[Close]:
    ours, theirs = tensor(arrays, "f_s").requires_grad_(), tensor(arrays, "f_t")
    adapters = zip(tensor(arrays, "adapter_weight"), tensor(arrays, "adapter_bias"), strict=True)
    losses = [
        (nn.functional.conv2d(ours, weight[..., None, None], bias) - target).square().mean()
        for (weight, bias), target in zip(adapters, theirs, strict=True)
    ]
    gradients = F.feature_gradients(losses, ours)
    yield close(f"{case} losses", torch.stack(losses), arrays["losses"], 1e-6)
    yield close(f"{case} g", gradients, arrays["g"], 1e-6)
    grams = {scope: F.gradient_gram(gradients, scope=scope) for scope in ("batch", "batch_mean")}
    weights = partial(F.gram_weights, tolerance=float(arrays["C"]))
    yield close(f"{case} alpha", weights(grams["batch"]), arrays["alpha_batch"], 1e-6)
    norms = grams["batch"].diagonal().sqrt()
    unit = weights(grams["batch"] / norms / norms[:, None])
    yield close(f"{case} alpha of units", unit, arrays["alpha_batch_normalized"], 1e-6)
    normalized = {scope: weights(gram, normalize=True) for scope, gram in grams.items()}
    yield close(f"{case} batch", normalized["batch"], arrays["weights_batch_normalized"], 1e-6)
    mean = normalized["batch_mean"]
    yield close(f"{case} batch mean", mean, arrays["weights_official_space"], 1e-6)
    yield close(f"{case} official", mean, arrays["weights_official_code"], 5e-5)


def convolution(case: str, arrays: Arrays) -> Iterator[Close]:
    bias = next((name for name in ("ensemble_bias", "bias") if name in arrays), None)
    names = ["x", "weight", "alpha", "gamma", *([bias] if bias else [])]
    given = [tensor(arrays, name).requires_grad_() for name in names]
    options = {name: int(arrays[name]) for name in ("stride", "padding", "groups")}
    output = F.batch_ensemble_conv(*given, **options)
    yield close(f"{case} output", output, arrays["output"], 1e-10)
    found = torch.autograd.grad(output, given, tensor(arrays, "cotangent"))
    for name, gradient in zip(names, found, strict=True):
        yield close(f"{case} grad_{name}", gradient, arrays[f"grad_{name}"], 1e-10)


def perturbation(case: str, arrays: Arrays) -> Iterator[Close]:
    w1, b1, w2, b2 = (tensor(arrays, name) for name in ("W1", "b1", "W2", "b2"))

    def teacher(x: Tensor) -> Tensor:
        return torch.tanh(x.flatten(1) @ w1.T + b1) @ w2.T + b2

    x, temperature, step = tensor(arrays, "x"), float(arrays["T"]), float(arrays["eta"])
    spread = F.output_spread(teacher, x, tensor(arrays, "w"), temperature=temperature)
    top = arrays["prob"].max(-1)
    yield close(f"{case} confidence", spread.confidence, top, 1e-8)
    gradient = spread.direction * spread.norm.view(-1, *[1] * (x.dim() - 1))
    yield close(f"{case} grad", gradient, arrays["grad"], 1e-8)
    yield close(f"{case} grad_norm", spread.norm, arrays["grad_norm"], 1e-8)
    for name, confident in (("ods", False), ("conf_ods", True)):
        moved = partial(F.diversify, x, spread, step=step, confident=confident)
        yield close(f"{case} x_{name}", moved(), arrays[f"x_{name}"], 1e-8)
        yield close(f"{case} eps_{name}", moved(bounds=None) - x, arrays[f"eps_{name}"], 1e-8)


def loss(case: str, arrays: Arrays) -> Iterator[Close]:
    names = ("logits_perturbed", "logits_teacher_perturbed", "logits_clean")
    perturbed, theirs, clean = (tensor(arrays, name).requires_grad_() for name in names)
    call = partial(
        F.ensemble_diversity_loss,
        perturbed,
        theirs,
        clean,
        torch.from_numpy(arrays["y"]),
        temperature=float(arrays["T"]),
    )
    total = call(share=float(arrays["a"]))
    yield close(f"{case} loss", total, arrays["loss"], 1e-10)
    yield close(f"{case} ce", call(share=0.0), arrays["ce"], 1e-10)
    yield close(f"{case} kd", call(share=1.0), arrays["kd"], 1e-10)
    for name, gradient in zip(
        ("clean", "perturbed"), torch.autograd.grad(total, [clean, perturbed]), strict=True
    ):
        yield close(f"{case} grad {name}", gradient, arrays[f"grad_logits_{name}"], 1e-10)


def measures(case: str, arrays: Arrays) -> Iterator[Close]:
    """Files hold probabilities [N, M, K]."""
    ours, held_out = (tensor(arrays, name).transpose(0, 1) for name in ("probs", "probs_val"))
    y, y_val = torch.from_numpy(arrays["y"]), torch.from_numpy(arrays["y_val"])
    mean, mean_val = ours.mean(0), held_out.mean(0)
    temperature = F.fit_temperature(mean_val.log(), y_val)
    scaled = F.calibrate_probabilities(mean, mean_val, y_val)
    exact = {
        "acc": (mean.argmax(-1) == y).double().mean(),
        "nll": F.nll(mean, y),
        "nll_official_eps": -(mean.gather(1, y[:, None]) + 1e-12).log().mean(),
        "brier": F.brier(mean, y),
        "ece": F.ece(mean, y),
        "diversity_kl": F.pairwise_kl(ours),
        "disagreement": F.pairwise_disagreement(ours),
        "member_acc_mean": (ours.argmax(-1) == y).double().mean(),
    }
    for name, value in exact.items():
        yield close(f"{case} {name}", value, arrays[name], 1e-7)
    yield close(f"{case} temperature", temperature, arrays["temperature"], 1e-5)
    for name, measure in (("cnll", F.nll), ("cbrier", F.brier), ("cece", F.ece)):
        yield close(f"{case} {name}", measure(scaled, y), arrays[name], 1e-5)
    curve = F.ensemble_curve(ours, y, held_out, y_val)
    yield close(f"{case} dee_curve", curve, arrays["dee_curve"], 1e-5)
    stored = [float(value) for value in arrays["dee_curve"]]
    for query, value in zip(arrays["dee_query"], arrays["dee_value"], strict=True):
        found = F.deep_ensemble_equivalent(stored, float(query))
        expected = 0.0 if value == -1 else float(value)
        allowed = 1e-5 * (1 + value) if math.isfinite(value) else 0.0
        yield Close(f"{case} dee {query:.4f}", found, np.array(expected), allowed)


def members(arrays: Arrays) -> Iterator[Close]:
    """A network of batch-ensemble layers, and each of its members as a plain one."""
    from limbeck.students import batch_ensemble

    student = batch_ensemble(network(arrays), members=len(arrays["members_logits"]))
    with torch.no_grad():
        for name, parameter in student.double().network.named_parameters():
            layer, _, kind = name.partition(".")
            key = f"{layer}_{'ensemble_bias' if kind == 'bias' and layer != 'bn' else kind}"
            parameter.copy_(torch.from_numpy(arrays[key]))
        student.eval()
        x = tensor(arrays, "x")
        yield close("members", student.members(x), arrays["members_logits"], 1e-10)
        yield close("mean", student(x).exp(), arrays["mean_prob"], 1e-10)
        yield close("log mean", student(x), arrays["log_mean_prob"], 1e-10)
        for number in range(len(student)):
            plain = student.member(number)
            yield close(f"member {number}", plain(x), arrays["members_logits"][number], 1e-10)
            for layer in ("c1", "c2", "fc"):
                stored = arrays[f"dense{number}_{layer}_weight"]
                weight = plain.get_submodule(layer).weight
                yield close(f"dense {number} {layer}", weight, stored, 1e-10)


def network(arrays: Arrays) -> nn.Module:
    """Two convolutions, the first with normalization, and a classifier, of the file's sizes."""
    (mid, channels, *_), (out, *_) = arrays["c1_weight"].shape, arrays["c2_weight"].shape
    model = nn.Sequential()
    model.add_module("c1", nn.Conv2d(channels, mid, 3, padding=1, bias=False))
    model.add_module("bn", nn.BatchNorm2d(mid, eps=float(arrays["bn_eps"])))
    model.add_module("relu1", nn.ReLU())
    model.add_module("c2", nn.Conv2d(mid, out, 3, stride=2, padding=1))
    model.add_module("relu2", nn.ReLU())
    model.add_module("mean", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    model.add_module("fc", nn.Linear(out, len(arrays["fc_weight"])))
    normalization = model.double().get_submodule("bn")
    normalization.running_mean.copy_(torch.from_numpy(arrays["bn_mean"]))
    normalization.running_var.copy_(torch.from_numpy(arrays["bn_var"]))
    return model


FAMILIES = {
    r"ae_qp": quadratic,
    r"ae_qp_edge\w*": quadratic_edge,
    r"ae_official_svm\w*": official,
    r"ae_space\w*": each_case(space),
    r"ae_features\w*": each_case(features),
    r"be_conv\w*": each_case(convolution),
    r"be_loss\w*": each_case(loss),
    r"be_members\w*": members,
    r"be_metrics\w*": each_case(measures),
    r"be_ods\w*": each_case(perturbation),
}
