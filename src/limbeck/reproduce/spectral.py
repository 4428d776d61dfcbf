"""Spectral students (Giambagli et al., NeurIPS 2023): the core that survives is the teacher's size.

A teacher of h orthonormal ReLU neurons teaches students of 20, 60 and 120; a group lasso in the
eigenvalues leaves h nodes alive in all of them. Beside it the paper's own setting, and digits.
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.data.random import derive, generator
from limbeck.nn.spectral import basis_of, gate_of
from limbeck.reproduce.claims import Claim, Evidence, Scale, at_least, at_most, figure, part
from limbeck.reproduce.parallel import one_thread, side_by_side
from limbeck.students import (
    SpectralPenalty,
    alive_nodes,
    export_dense,
    find_width,
    fit_targets,
    mask_nodes,
    merge_parallel,
    node_scores,
    spectralize,
)

NAME = "spectral"
INPUTS = 10
WIDTHS = (20, 60, 120)
CORES = (5, 8, 10)
PENALTY = SpectralPenalty()
Pair = tuple[Tensor, Tensor]
PAPER = "the core is invariant across student sizes and equals the teacher's size"
FULL_CORES = (5, 8, 8, 8, 10)


@dataclass
class Found:
    """What the students of one teacher showed, one value a student."""

    merged: list[float] = field(default_factory=list)
    knee: list[float] = field(default_factory=list)
    below: list[float] = field(default_factory=list)
    full: list[float] = field(default_factory=list)
    cosine: list[float] = field(default_factory=list)
    balance: list[float] = field(default_factory=list)
    alive_pull: list[float] = field(default_factory=list)
    dead_pull: list[float] = field(default_factory=list)
    paths: list[float] = field(default_factory=list)
    export: list[float] = field(default_factory=list)


def measure(scale: Scale) -> Evidence:
    """Train the students and judge the claims."""
    cores = FULL_CORES if scale.full else CORES[: scale.seeds or len(CORES)]
    calls: list[tuple[Any, ...]] = [
        ("paper", w, d) for w, d in ((200, False), (50, False), (50, True))
    ]
    calls += [("core", core, number) for number, core in enumerate(cores)]
    calls += [("direct",), ("digits",)]
    results = side_by_side(
        work,
        [(scale.share, *call) for call in calls],
        workers=scale.workers,
        report=lambda place, result: scale.report(f"{calls[place]}: {result}"),
    )
    found = Found()
    for result in results[3:-2]:
        for name, values in result.items():
            getattr(found, name).extend(values)
    return Evidence(
        NAME,
        [
            *judge_core(found),
            *judge_direct(*results[-2]),
            *judge_paper(*results[:3]),
            *convolution(),
            *judge_digits(**results[-1]),
        ],
    )


def work(share: float, kind: str, *details: Any) -> Any:
    """One training, or a few that belong together, in a process of its own."""
    one_thread()
    jobs: dict[str, Callable[..., Any]] = {
        "core": exact_core,
        "direct": direct_control,
        "paper": paper_setting,
        "digits": digits,
    }
    return jobs[kind](*details, share)


def draw(rows: int, columns: int, *names: str | int) -> Tensor:
    """Standard normal numbers of a stream."""
    return torch.randn(rows, columns, generator=generator(0, "spectral", *names))


def network(width: int, second: int, seed: int) -> Any:
    """10 inputs, two ReLU layers without biases, Glorot-uniform, and their frozen sum."""
    model: Any = nn.Sequential(
        nn.Linear(INPUTS, width, bias=False),
        nn.ReLU(),
        nn.Linear(width, second, bias=False),
        nn.ReLU(),
        nn.Linear(second, 1, bias=False),
    )
    draws = generator(seed, "network", width)
    with torch.no_grad():
        for place in (0, 2):
            nn.init.xavier_uniform_(model[place].weight, generator=draws)
        model[4].weight.fill_(1)
    model[4].requires_grad_(False)
    return model


def orthonormal_teacher(core: int, seed: int) -> Any:
    """`core` orthonormal neurons and outgoing weights of ±1.5, in turn, into one unit.

    Drawn at random, most may be negative, and an output that is nearly always zero has less
    variance than the penalty takes.
    """
    model = network(core, 1, seed)
    with torch.no_grad():
        model[0].weight.copy_(torch.linalg.qr(draw(INPUTS, core, seed, "v"))[0].T)
        model[2].weight.copy_(1.5 - 3.0 * (torch.arange(core) % 2))
    return model


def spectral_student(
    model: nn.Module, x: Tensor, y: Tensor, *, direct: bool = False, **options: Any
) -> Any:
    """A trained spectral student, or the control: eigenvalues frozen at one, L2 on the basis."""
    student: Any = spectralize(model, ["0"])
    gate = gate_of(student[0])
    if direct and gate is not None:
        gate.eigenvalues.requires_grad_(False)
    options = {"lr": 2e-3 if direct else 5e-3, "penalty": PENALTY, **options}
    return fit_targets(student, x, y, **options)


def core_task(core: int, number: int) -> tuple[Any, int, Pair, Pair]:
    """A teacher, the seed of its stream, and samples with its answers for training and after."""
    seed = derive(0, "teacher", number)
    teacher = orthonormal_teacher(core, seed)
    x, held_out = draw(8000, INPUTS, seed, "x"), draw(2000, INPUTS, seed, "held out")
    with torch.no_grad():
        return teacher, seed, (x, teacher(x)), (held_out, teacher(held_out))


def exact_core(core: int, number: int, share: float) -> dict[str, list[float]]:
    """Students of every width on one teacher."""
    teacher, seed, train, held_out = core_task(core, number)
    found = Found()
    for width in WIDTHS:
        start = network(width, 1, derive(seed, width))
        student = spectral_student(start, *train, batch=400, epochs=part(300, share))
        examine(student, teacher, train, held_out, core, found)
    return vars(found)


def examine(
    student: Any,
    teacher: Any,
    train: tuple[Tensor, Tensor],
    held_out: tuple[Tensor, Tensor],
    core: int,
    found: Found,
) -> None:
    """Every figure of one trained student."""
    x, truth = held_out
    variance = float(truth.var())
    width = find_width(student, lambda m: mse(m, x, truth) / variance, counts=[core - 1, core])
    found.knee.append(width.nodes - core)
    found.below.append(width.ramp[core - 1])
    found.full.append(width.ramp[width.total])
    merged: Any = merge_parallel(student)
    found.merged.append(merged[0].out_features - core)
    if merged[0].out_features >= core:
        found.paths.append(path_distance(merged, teacher))
    found.cosine.append(worst_match(student, teacher, core))
    laws(student, *train, found)
    small = export_dense(student, width.alive)
    masked = copy.deepcopy(student)
    mask_nodes(masked, width.alive)
    with torch.no_grad():
        found.export.append(float((small(x) - masked(x)).abs().max()))


@torch.no_grad()
def mse(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Mean squared error."""
    return float((model(x) - y).square().mean())


@torch.no_grad()
def worst_match(student: Any, teacher: Any, core: int) -> float:
    """The smallest cosine of the best `core` nodes with a teacher neuron each; −1: not distinct."""
    best = node_scores(student)["0"].argsort(descending=True)[:core]
    plain: Any = export_dense(student)
    nodes = plain[0].weight[best]
    cosines = torch.nn.functional.normalize(nodes) @ teacher[0].weight.T
    value, match = cosines.max(1)
    return float(value.min()) if len(set(match.tolist())) == core else -1.0


def laws(student: Any, x: Tensor, y: Tensor, found: Found) -> None:
    """The group lasso's: balance of the two penalties, and the gradient's length of each node."""
    alive = alive_nodes(student)["0"]
    layer = student[0]
    gate = gate_of(layer)
    if gate is None:
        return
    (basis,) = basis_of(layer)
    sizes = PENALTY.mu_phi * basis.square().sum(1)
    ratio = (sizes / (PENALTY.mu_lambda * gate.eigenvalues.square())).detach()
    found.balance += ratio[alive].tolist()
    plain: Any = export_dense(student)
    loss = (plain(x) - y).square().mean()
    (gradient,) = torch.autograd.grad(loss, plain[0].weight)
    pull = gradient.norm(dim=1) / PENALTY.strength
    found.alive_pull.append(float(pull[alive].median()))
    if not alive.all():
        found.dead_pull.append(float(pull[~alive].max()))


@torch.no_grad()
def path_distance(student: Any, teacher: nn.Module) -> float:
    """How far the quantiles of all products of successive weights are from the teacher's."""

    def quantiles(model: Any) -> Tensor:
        products = model[0].weight.T[:, :, None] * model[2].weight.T[None]
        found: Tensor = products.flatten().quantile(torch.linspace(0, 1, 201))
        return found

    ours, theirs = quantiles(student), quantiles(teacher)
    return float((ours - theirs).abs().mean() / theirs.abs().mean())


def judge_core(found: Found) -> list[Claim]:
    """The claims on the exact core, its laws, paths and export."""
    exact = sum(value == 0 for value in found.knee) / len(found.knee)
    return [
        at_most(
            "A: merged core minus teacher's size", [abs(v) for v in found.merged], 0, paper=PAPER
        ),
        at_most("A: knee minus teacher's size", found.knee, 3),
        at_least("A: smallest knee minus teacher's size", [min(found.knee)], 0),
        at_least("A: share of students whose knee is the teacher's size", [exact], 0.6),
        at_least(
            "A: error one node below, over the variance", [min(found.below)], 0.05, paper=PAPER
        ),
        at_most("A: error of the whole student, over the variance", found.full, 1e-3),
        at_least("A: cosine of core nodes and distinct teacher neurons", [min(found.cosine)], 0.99),
        within("C: median of the penalties' balance", statistics.median(found.balance), 0.8, 1.1),
        within(
            "C: alive nodes' gradient over tau", statistics.median(found.alive_pull), 0.75, 1.25
        ),
        at_most("C: dead nodes' gradient over tau", found.dead_pull or [0.0], 1.0),
        at_most("D: path quantiles of the merged core", found.paths or [float("inf")], 0.05),
        at_most("E: exported against masked outputs", found.export, 1e-5),
    ]


def within(claim: str, value: float, low: float, high: float, paper: str = "") -> Claim:
    """A claim that a value lies between two others."""
    line = f"in [{low:g}, {high:g}]"
    return Claim(claim, paper, value, 0.0, line, low <= value <= high)


def direct_control(share: float) -> tuple[float, float]:
    """Nodes alive and knee of plain training at width 120, on a teacher of 8."""
    _, seed, train, (x, truth) = core_task(8, 1)
    start = network(120, 1, derive(seed, 120))
    student = spectral_student(start, *train, direct=True, batch=400, epochs=part(300, share))
    width = find_width(student, lambda m: mse(m, x, truth))
    return float(alive_nodes(student)["0"].sum()), float(width.nodes)


def judge_direct(alive: float, knee: float) -> list[Claim]:
    """Plain training has no core."""
    return [
        at_least("A: nodes alive of 120 in direct training", [alive], 90, paper="no core"),
        at_least("A: knee of 120 in direct training", [knee], 40),
    ]


@torch.no_grad()
def convolution() -> list[Claim]:
    """A spectral convolution scales channels, whatever the image's width."""
    differences = []
    for width in (4, 7):
        conv = nn.Conv2d(2, 4, 3, padding=1).double()
        model: Any = spectralize(nn.Sequential(conv, nn.ReLU(), nn.Conv2d(4, 1, 1).double()))
        gate = gate_of(model[0])
        if gate is not None:
            gate.eigenvalues.copy_(torch.linspace(-1, 2, 4))
            x = draw(2 * 2 * 6, width, "image").double().view(2, 2, 6, width)
            kernel = gate.eigenvalues[:, None, None, None] * conv.weight
            expected = torch.nn.functional.conv2d(x, kernel, conv.bias, padding=1)
            differences.append(float((model[0](x) - expected).abs().max()))
    return [at_most("G: spectral against scaled convolution", differences, 1e-12)]


def paper_setting(width: int, direct: bool, share: float) -> tuple[float, float]:
    """h = 20 Glorot neurons, 5 after them, constant step size, 2,000 epochs.

    Returns:
        Nodes alive, and the error that their cut adds, over the variance.
    """
    teacher = network(20, 5, 0)
    x, held_out = draw(8000, INPUTS, "paper"), draw(4000, INPUTS, "paper held out")
    with torch.no_grad():
        y, truth = teacher(x), teacher(held_out)
    options: dict[str, Any] = {"epochs": part(2000, share), "batch": 500 if direct else 300}
    start = network(width, 5, 1 + width)
    student = spectral_student(start, x, y, direct=direct, last_lr=1.0, **options)
    kept = alive_nodes(student)
    added = mse(export_dense(student, kept), held_out, truth) - mse(student, held_out, truth)
    return float(kept["0"].sum()), added / float(truth.var())


def judge_paper(*results: tuple[float, float]) -> list[Claim]:
    """Two spectral students of other widths, and direct training at width 50."""
    alive, lost = zip(*results, strict=True)
    return [
        at_least("B: fewest nodes alive, h = 20", [min(alive[:2])], 18, paper="20, in the mean"),
        at_most("B: most nodes alive, h = 20", alive[:2], 27, paper="20, in the mean"),
        at_most("B: error added by the cut, over the variance", lost[:2], 0.01),
        at_least("B: share alive in direct training", [alive[2] / 50], 0.9, paper="no core"),
    ]


def digits(share: float) -> dict[str, float]:
    """Handwritten digits, a teacher of 12 hidden units: what a cut costs without fine-tuning."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=generator(0, "digits"))
    x = torch.from_numpy(images).float()[order] / 16
    y = torch.from_numpy(labels).long()[order]
    cut = 1297
    teacher = _mlp(12, 0)
    hard = 3 * torch.nn.functional.one_hot(y, 10).float()
    fit_targets(teacher, x[:cut], hard[:cut], epochs=part(300, share), batch=100)
    with torch.no_grad():
        logits = teacher(x)
        logits = 3 * (logits - logits[:cut].mean()) / logits[:cut].std()
    options: dict[str, Any] = {"epochs": part(400, share), "batch": 200, "noise": 0.05}
    accuracy = {}
    for name, direct in (("spectral", False), ("direct", True)):
        student = spectral_student(_mlp(256, 1), x[:cut], logits[:cut], direct=direct, **options)
        scores = node_scores(student)["0"]
        kept = torch.zeros(256, dtype=torch.bool)
        kept[scores.argsort(descending=True)[:48]] = True
        with torch.no_grad():
            guess = export_dense(student, {"0": kept})(x[cut:]).argmax(1)
        accuracy[name] = 100 * float((guess == y[cut:]).float().mean())
    strong = SpectralPenalty(8 * PENALTY.mu_phi, 8 * PENALTY.mu_lambda)
    options["epochs"] = part(600, share)
    student = spectral_student(_mlp(64, 2), x[:cut], logits[:cut], penalty=strong, **options)
    alive = float(alive_nodes(student)["0"].sum())
    return accuracy | {"alive": alive}


def judge_digits(spectral: float, direct: float, alive: float) -> list[Claim]:
    """Accuracies in percent after the cut, and nodes alive under the stronger penalty."""
    return [
        figure("F: accuracy of the spectral student cut from 256 to 48", [spectral]),
        at_least("F: over direct training at 48 nodes, points", [spectral - direct], 10),
        at_most("F: nodes alive over the teacher's 12", [alive / 12], 2.5),
    ]


def _mlp(width: int, seed: int) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
