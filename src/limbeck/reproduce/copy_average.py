"""Copy or average (Şimşek et al., NeurIPS 2023): exact losses, gradient flow, starts on digits."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.data.random import generator
from limbeck.reproduce.claims import Claim, Evidence, Scale, at_least, at_most, figure, part
from limbeck.reproduce.parallel import one_thread
from limbeck.students import fit_targets, start_from
from limbeck.theory import (
    best_groups,
    copy_average_loss,
    copy_average_point,
    copying_loss,
    copying_wins_from,
    gradient_flow,
    interaction,
    one_neuron,
    partitions,
    population_loss,
)
from limbeck.theory.gradient_flow import best_cosines
from limbeck.theory.population import quadrature

NAME = "copy-average"
PAPER = "n - 1 neurons copy, one averages the rest: the optimum, and where gradient flow ends"
CROSSINGS = {6: 5, 7: 6, 8: 7, 9: 7, 10: 8, 12: 10}
FLOWS, MANY_FLOWS = 5, 20


def measure(scale: Scale) -> Evidence:
    """Check the closed forms, let the flows run, and start real networks."""
    one_thread()
    claims = [*closed_forms(), *critical_points(), *flows(scale), relu_flow(scale), *starts(scale)]
    return Evidence(NAME, claims)


def unit_teacher(k: int) -> tuple[Tensor, Tensor]:
    """k orthonormal neurons with outgoing weights of 1."""
    return torch.ones(k, dtype=torch.float64), torch.eye(k, dtype=torch.float64)


def grouped(sizes: tuple[int, ...]) -> list[list[int]]:
    """Consecutive neurons in groups of these sizes."""
    ends = torch.tensor(sizes).cumsum(0).tolist()
    return [list(range(end - size, end)) for size, end in zip(sizes, ends, strict=True)]


def closed_forms() -> list[Claim]:
    """A, B, E, J."""
    draws = generator(0, NAME)
    r1, r2 = 0.2 + 2 * torch.rand(2, 20, generator=draws, dtype=torch.float64)
    u = 1.9 * torch.rand(20, generator=draws, dtype=torch.float64) - 0.95
    numeric = quadrature(lambda x: torch.erf(x / math.sqrt(2)), r1, r2, u)
    form = float((interaction(r1, r2, u) - numeric).abs().max())
    neurons = [abs(one_neuron(k).loss - _numeric_neuron(k)) for k in range(1, 21)]
    wrong = [float(copying_wins_from(k) != n) for k, n in CROSSINGS.items()]
    return [
        at_most("A: closed erf form against quadrature", [form], 1e-9),
        *(
            at_most(f"B: gradient against differences, {name}", [_differences(name)], 1e-7)
            for name in ("erf", "relu")
        ),
        at_most("E: one neuron against a numerical optimum, k to 20", neurons, 1e-10),
        at_most("J: wrong entries in the table where copying wins", wrong, 0, paper=PAPER),
    ]


def _numeric_neuron(k: int) -> float:
    """The best loss of one erf neuron along the mean, over its length; the best a is known."""
    from scipy.optimize import minimize_scalar

    def loss(r: float) -> float:
        length = torch.tensor(r, dtype=torch.float64)
        one = torch.ones((), dtype=torch.float64)
        own = interaction(length, length, one)
        cross = k * interaction(length, one, one / math.sqrt(k))
        return float(k / 3 - cross**2 / own)

    found = minimize_scalar(loss, bounds=(1e-3, 2.0), method="bounded", options={"xatol": 1e-10})
    return float(found.fun)


def _differences(activation: str) -> float:
    """The largest deviation of the gradient from central differences."""
    draws = generator(1, NAME)
    b, v = unit_teacher(4)
    point = torch.randn(3 * 5, generator=draws, dtype=torch.float64, requires_grad=True)

    def loss(p: Tensor) -> Tensor:
        return population_loss(p[:3], p[3:].view(3, 4), b, v, activation=activation)

    (gradient,) = torch.autograd.grad(loss(point), point)
    step, base = 1e-5, point.detach()
    shifts = step * torch.eye(15, dtype=torch.float64)
    numeric = [(loss(base + shift) - loss(base - shift)) / (2 * step) for shift in shifts]
    return float((gradient - torch.stack(numeric)).abs().max())


def critical_points() -> list[Claim]:
    """C, D, H."""
    b, v = unit_teacher(6)
    steepest, sums = 0.0, 0.0
    for n in range(1, 7):
        for sizes in partitions(6, n):
            a, w = copy_average_point(v, b, grouped(sizes))
            a.requires_grad_(), w.requires_grad_()
            loss = population_loss(a, w, b, v)
            pulls = torch.autograd.grad(loss, (a, w))
            steepest = max(steepest, *(float(pull.abs().max()) for pull in pulls))
            sums = max(sums, abs(float(loss.detach()) - copy_average_loss(sizes)))
    best = [
        float(min(partitions(k, n), key=copy_average_loss) != best_groups(k, n))
        for k in (6, 8, 10)
        for n in range(1, k + 1)
    ]
    return [
        at_most("C: gradient at every copy-average point, k = 6", [steepest], 1e-10, paper=PAPER),
        at_most("D: loss of a point minus the sum over its groups", [sums], 1e-12),
        at_most("D: partitions better than n - 1 copies", best, 0, paper=PAPER),
        at_least("H: lowest curvature at (1, 1, 4)", [_curvature((1, 1, 4))], 0, every=True),
        at_most("H: lowest curvature at (2, 2, 2)", [_curvature((2, 2, 2))], -1e-3),
    ]


def _curvature(sizes: tuple[int, ...]) -> float:
    b, v = unit_teacher(sum(sizes))
    a, w = copy_average_point(v, b, grouped(sizes))
    n = len(sizes)

    def loss(p: Tensor) -> Tensor:
        return population_loss(p[:n], p[n:].view(n, -1), b, v)

    hessian: Any = torch.autograd.functional.hessian(loss, torch.cat([a, w.flatten()]))  # type: ignore[no-untyped-call]
    return float(torch.linalg.eigvalsh(hessian)[0])


def flows(scale: Scale) -> list[Claim]:
    """F, G."""
    seeds = scale.seeds or (2 * FLOWS if scale.full else FLOWS)
    claims = []
    for n in (2, 4, 7):
        target = copying_loss(8, 7) if n == 7 else copy_average_loss(best_groups(8, n))
        ends = [gradient_flow(8, n, seed=seed).loss for seed in range(part(seeds, scale.share))]
        hits = sum(abs(end - target) < 1e-5 for end in ends) / len(ends)
        kind = "copies" if n == 7 else "the best copy-average point"
        scale.report(f"k = 8, n = {n}: {hits:.0%} of {len(ends)} flows end at {kind}")
        claims.append(
            at_least(
                f"F: share of flows that end at {kind}, k = 8, n = {n}", [hits], 0.8, paper=PAPER
            )
        )
    known = (copying_loss(6, 5), copy_average_loss(best_groups(6, 5)))
    ends = [gradient_flow(6, 5, seed=seed).loss for seed in range(part(MANY_FLOWS, scale.share))]
    apart = [min(abs(end - loss) for loss in known) for end in ends]
    claims.append(at_most("G: end losses from the two known minima, k = 6, n = 5", apart, 1e-5))
    return claims


def relu_flow(scale: Scale) -> Claim:
    """I: with ReLU one neuron nearly copies, the other averages three."""
    ends = [gradient_flow(4, 2, seed=s, activation="relu") for s in range(part(8, scale.share))]
    best = min(ends, key=lambda end: end.loss)
    closest = best_cosines(best.w, 4)
    other = best.w[int(closest.argmin()), :4] / best.w[int(closest.argmin())].norm()
    three = other.sort(descending=True).values[:3]
    shown = float(closest.max()) > 0.98 and bool(((three - 0.55).abs() < 0.02).all())
    line = "cosine > 0.98, and three of 0.55 ± 0.02"
    return Claim("I: ReLU, k = 4, n = 2: near copy", PAPER, float(closest.max()), 0.0, line, shown)


def starts(scale: Scale) -> list[Claim]:
    """K: a 64-64-10 teacher of digits, students of 16."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=generator(0, "digits"))
    x = torch.from_numpy(images).float()[order] / 16
    y = torch.from_numpy(labels).long()[order]
    teacher, cut = _mlp(64, 0), 1297
    _learn(teacher, x[:cut], y[:cut], part(60, scale.share))
    with torch.no_grad():
        logits = teacher(x)
    options: dict[str, Any] = {"batch": 64, "lr": 2e-3, "last_lr": 1.0}
    losses: dict[str, list[float]] = {}
    for name in ("none", "copy", "copy-average", "cluster"):
        student: nn.Module = _mlp(16, 1)
        if name != "none":
            student = start_from(teacher, student, name, x=x[:cut]).student  # type: ignore[arg-type]
        losses[name] = [_error(student, x[cut:], logits[cut:])]
        for epochs in (part(5, scale.share), part(25, scale.share)):
            fit_targets(student, x[:cut], logits[:cut], epochs=epochs, **options)
            losses[name].append(_error(student, x[cut:], logits[cut:]))
    scale.report(f"digits, test error of logits after 0, 5, 30 epochs: {losses}")
    average, copied, random = losses["copy-average"], losses["copy"], losses["none"]
    return [
        *(figure(f"K: logit error after 5 epochs, {name}", [v[1]]) for name, v in losses.items()),
        at_most("K: copy-average at 5 over random at 30 epochs", [average[1] / random[2]], 1),
        at_most("K: copy-average over copy before training", [average[0] / copied[0]], 1),
    ]


def _learn(model: nn.Module, x: Tensor, y: Tensor, epochs: int) -> None:
    """Cross-entropy on the labels."""
    optimizer, draws = torch.optim.Adam(model.parameters(), 3e-3), generator(1, "digits")
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(x), generator=draws), 64):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()


@torch.no_grad()
def _error(model: nn.Module, x: Tensor, target: Tensor) -> float:
    return float((model(x) - target).square().mean())


def _mlp(width: int, seed: int) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
