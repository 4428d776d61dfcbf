"""Wide networks (Ji and Zhu, NeurIPS 2020): effective logits, data inefficiency, the best mix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as tf
from torch import Tensor, nn

import limbeck.functional as F
from limbeck.data.random import generator
from limbeck.reproduce.claims import Claim, Evidence, Scale, at_least, at_most, figure, part
from limbeck.reproduce.parallel import one_thread
from limbeck.theory import (
    Difficulty,
    KernelStudent,
    Tangent,
    difficulty,
    mean_log_norms,
    oracle_angle,
    risk_bound,
    window_inefficiency,
)
from limbeck.theory.difficulty import RIDGE, mixed_targets

NAME = "wide-network"
EASY = "soft labels of a good teacher need less data; the hard label corrects a wrong one"


class WideLayer(nn.Module):
    """s_w / √fan_in · x W + s_b · b, every entry drawn from N(0, 1): the NTK parametrization."""

    def __init__(
        self, inputs: int, outputs: int, scale: float, bias: float, draws: torch.Generator
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(
            torch.randn(inputs, outputs, generator=draws, dtype=torch.float64)
        )
        self.bias = nn.Parameter(torch.randn(outputs, generator=draws, dtype=torch.float64))
        self.scale, self.shift = scale / math.sqrt(inputs), bias

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return self.scale * (x @ self.weight) + self.shift * self.bias


def wide(inputs: int, width: int, *, depth: int, seed: int, bias: float = 1.0) -> nn.Sequential:
    """A ReLU network in the NTK parametrization with one logit."""
    draws = generator(seed, "wide", width, depth)
    sizes = [inputs, *[width] * depth]
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [WideLayer(fan_in, fan_out, math.sqrt(2), bias, draws), nn.ReLU()]
    return nn.Sequential(*layers, WideLayer(width, 1, 1.0, 0.0, draws))


def measure(scale: Scale) -> Evidence:
    """Measure all claims."""
    one_thread()
    planar = Planar.make(scale)
    claims = [*logits(), *trained_equals_predicted(scale), *inefficiency(planar, scale)]
    claims += [*imperfect(planar, scale), *bound(), *picks(scale), matrix_free()]
    return Evidence(NAME, claims)


def logits() -> list[Claim]:
    """A: the equation, its limit, and the correction threshold."""
    z = 6 * torch.randn(2000, generator=generator(0, NAME), dtype=torch.float64)
    y = (torch.rand(2000, generator=generator(1, NAME)) < 0.5).long()
    same = F.effective_logits(z, y, soft_ratio=1.0, temperature=3.0)
    wrong = (z < 0).long()
    threshold = F.correction_threshold(z, temperature=2.0)
    mistakes = 0.0
    for factor, turned in ((0.999, True), (1.001, False)):
        ratio = (factor * threshold).clamp(max=1)
        signs = F.effective_logits(z, wrong, soft_ratio=ratio, temperature=2.0) * z < 0
        mistakes += float((signs != turned)[ratio < 1].sum())
    z_e = F.effective_logits(z, y, soft_ratio=0.3, temperature=4.0)
    slope = 0.3 / 4 * (torch.sigmoid(z_e / 4) - torch.sigmoid(z / 4))
    slope = slope + 0.7 * (torch.sigmoid(z_e) - y)
    return [
        at_most(
            "A: gradient of the loss at the effective logits", [float(slope.abs().max())], 1e-9
        ),
        at_most(
            "A: effective minus teacher's logits at ratio 1", [float((same - z).abs().max())], 1e-9
        ),
        at_most("A: signs that the threshold predicts wrongly, of 4,000", [mistakes], 0),
    ]


def trained_equals_predicted(scale: Scale) -> list[Claim]:
    """B: gradient descent on the two-term loss ends where the kernel says."""
    draws = generator(2, NAME)
    x, test = (
        tf.normalize(torch.randn(count, 6, generator=draws, dtype=torch.float64))
        for count in (24, 300)
    )
    target = 1.5 * x[:, 0] + x[:, 1]
    y = (target + 0.5 * x[:, 2] > 0).long()
    errors: dict[int, float] = {}
    gaps, agreement, steps = [], [], []
    for width in (128, 4096) if scale.share == 1 else (64, 512):
        model = wide(6, width, depth=1, seed=width)
        tangent = Tangent(model)
        z = F.effective_logits(target, y, soft_ratio=0.7, temperature=2.0)[:, None]
        kernel, cross = tangent.kernels(x, test)
        residual = z - tangent.outputs(x)
        predicted = tangent.outputs(test)
        predicted = predicted + KernelStudent(kernel, ridge=0.0).predict(residual, cross)
        largest = float(torch.linalg.eigvalsh(kernel[0])[-1])
        gap, taken = descend(model, x, target, y, z, 2 * len(x) / largest)
        with torch.no_grad():
            trained = model(test)
        errors[width] = float((trained - predicted).norm() / predicted.norm())
        agreement.append(float((trained * predicted > 0).double().mean()))
        gaps.append(gap)
        steps.append(taken)
    small, large = errors.values()
    scale.report(f"relative error of the linear prediction by width: {errors}, steps {steps}")
    return [
        at_most("B: training logits from the effective ones", gaps, 1e-4),
        at_most("B: steps until then", steps, 2000),
        at_most("B: relative error of the prediction, width 4096", [large], 0.1),
        at_most("B: that over the error at width 128", [large / small], 0.5),
        at_least("B: signs that agree, width 4096", agreement[-1:], 0.95),
    ]


def descend(
    model: nn.Module, x: Tensor, teacher: Tensor, y: Tensor, z: Tensor, lr: float
) -> tuple[float, int]:
    """Gradient descent with momentum until the logits are within 1e-4 of `z`."""
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.95)
    gap = math.inf
    for step in range(2000):
        found = model(x)
        gap = float((found.detach() - z).abs().max())
        if gap < 1e-4:
            return gap, step
        optimizer.zero_grad()
        mixed_loss(found[:, 0], teacher, y, 0.7, 2.0).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return gap, 2000


def mixed_loss(z: Tensor, teacher: Tensor, y: Tensor, ratio: float, temperature: float) -> Tensor:
    """ρ H(teacher/T, student/T) + (1 − ρ) H(label, student), one logit a sample."""
    soft = tf.binary_cross_entropy_with_logits(z / temperature, (teacher / temperature).sigmoid())
    return ratio * soft + (1 - ratio) * tf.binary_cross_entropy_with_logits(z, y.to(z))


@dataclass
class Planar:
    """Samples in the plane, the truth's sign, teachers of several ages, and kernels.

    Attributes:
        x: transfer samples.
        test: of the task.
        teachers: a network by its epochs of training.
        kernels: Θ(x, x) and Θ(test, x) of each start of the student.
    """

    x: Tensor
    test: Tensor
    teachers: dict[int, nn.Module]
    kernels: list[tuple[Tensor, Tensor]]

    @classmethod
    def make(cls, scale: Scale) -> Planar:
        """Draw the samples, train the teacher, and compute the kernels."""
        draws = generator(3, NAME)
        count = max(96, part(512, scale.share))
        x, test = (
            3 * torch.rand(n, 2, generator=draws, dtype=torch.float64) - 1.5 for n in (count, 1500)
        )
        kernels = []
        for seed in range(2 if scale.share == 1 else 1):
            tangent = Tangent(wide(2, part(256, max(scale.share, 0.25)), depth=2, seed=seed))
            kernels.append(tangent.kernels(x, test))
            scale.report(f"kernel {seed} of {tangent.size} parameters and {count} samples")
        return cls(x, test, planar_teachers((1, 2, 5, 20, 30, 60)), kernels)


def truth(x: Tensor) -> Tensor:
    """The task's logit."""
    first, second = x[:, 0], x[:, 1]
    waves = torch.sin(2.2 * first + 0.4) + torch.cos(2.5 * second)
    return waves - 0.3 * first * second - 0.35


def planar_teachers(epochs: Sequence[int]) -> dict[int, nn.Module]:
    """A 2-64-64-1 network, Adam on 4,000 hard labels, as it was after some epochs."""
    import copy

    draws = generator(4, NAME)
    x = 3 * torch.rand(4000, 2, generator=draws) - 1.5
    y = (truth(x) > 0).float()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1)
        )
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
    kept: dict[int, nn.Module] = {}
    for epoch in range(1, max(epochs) + 1):
        for rows in torch.split(torch.randperm(len(x), generator=draws), 100):
            optimizer.zero_grad()
            tf.binary_cross_entropy_with_logits(model(x[rows])[:, 0], y[rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        if epoch in epochs:
            kept[epoch] = copy.deepcopy(model).eval()
    return kept


@torch.no_grad()
def said(model: nn.Module, x: Tensor) -> Tensor:
    """One logit a sample, float64."""
    logits: Tensor = model(x.float())[:, 0].double()
    return logits


def inefficiency(planar: Planar, scale: Scale) -> list[Claim]:
    """C: I(n) and the student's error against a perfect teacher, by ratio and by its age."""
    found, wrong = {}, {}
    for ratio in (1.0, 0.9, 0.5, 0.1):
        found[ratio], wrong[ratio] = _slope(planar, planar.teachers[5], ratio)
    ages = {age: _slope(planar, planar.teachers[age], 1.0)[0] for age in (2, 5, 20, 60)}
    scale.report(f"I(n) by soft ratio: {found}; by the teacher's epochs: {ages}")
    return [
        *(figure(f"C: I at soft ratio {ratio:g}", [value]) for ratio, value in found.items()),
        rises("C: least rise of I as the ratio falls", list(found.values())),
        rises("C: least rise of the error as the ratio falls", list(wrong.values())),
        rises("C: least rise of I with the teacher's epochs", list(ages.values())),
        at_most("C: I at ratio 1 over I at 0.5", [found[1.0] / found[0.5]], 0.5, paper=EASY),
    ]


def rises(claim: str, values: Sequence[float]) -> Claim:
    """A claim that values rise strictly."""
    least = min(after - before for before, after in pairwise(values))
    return Claim(claim, EASY, least, 0.0, "> 0", least > 0)


def _slope(planar: Planar, teacher: nn.Module, ratio: float) -> tuple[float, float]:
    """I over the last quarter, and the error, with the teacher's own signs as labels."""
    z = said(teacher, planar.x)
    target = mixed_targets(z[:, None], (z > 0).long(), ratio, 2.0)
    signs, slopes, errors = said(teacher, planar.test) > 0, [], []
    for kernel, cross in planar.kernels:
        norms = mean_log_norms(kernel, target, orders=6, ridge=RIDGE)
        slopes.append(window_inefficiency(norms, len(z) // 4, len(z)))
        predicted = KernelStudent(kernel, ridge=RIDGE).predict(target, cross)[:, 0]
        errors.append(float(((predicted > 0) != signs).double().mean()))
    return sum(slopes) / len(slopes), sum(errors) / len(errors)


def imperfect(planar: Planar, scale: Scale) -> list[Claim]:
    """D: the best soft ratio lies inside (0, 1) for a wrong teacher, and at 1 for a perfect one."""
    best, curves = {}, {}
    for name in ("1", "5", "30", "perfect"):
        on = (
            4 * truth(planar.x) if name == "perfect" else said(planar.teachers[int(name)], planar.x)
        )
        grid = _grid(planar, on)
        best[name] = grid.best.soft_ratio
        curves[name] = {cell.soft_ratio: cell.error for cell in grid.cells}
    scale.report(f"best soft ratio by the teacher's epochs: {best}")
    order = [best[name] for name in ("1", "5", "30")]
    gain = min(curves["5"].values()) / curves["5"][1.0]
    falls = min(b - a for a, b in pairwise(order))
    return [
        at_least("D: best ratio, perfect teacher", [best["perfect"]], 1.0, paper=EASY),
        *(
            Claim(
                f"D: best ratio, teacher of {n} epoch(s)",
                EASY,
                best[n],
                0.0,
                "in (0.01, 1)",
                0.01 < best[n] < 1,
            )
            for n in ("1", "5")
        ),
        at_least("D: least change of the best ratio with quality", [falls], 0.0),
        at_most("D: best error over that at ratio 1, 5 epochs", [gain], 0.85, paper=EASY),
    ]


def _grid(planar: Planar, teacher: Tensor) -> Difficulty:
    kernel, cross = planar.kernels[0]
    start = (torch.zeros(len(planar.x), 1), torch.zeros(len(planar.test), 1))
    labels = ((truth(planar.x) > 0).long(), (truth(planar.test) > 0).long())
    return difficulty(
        kernel,
        cross,
        start,
        teacher[:, None],
        labels,
        soft_ratios=(1.0, 0.95, 0.9, 0.8, 0.6, 0.4, 0.2, 0.05),
        temperatures=(1.0,),
        ridge=RIDGE,
        orders=1,
    )


def bound() -> list[Claim]:
    """E: the risk bound with a known oracle."""
    draws = generator(5, NAME)
    tangent = Tangent(wide(5, 256, depth=1, seed=5))
    anchors, x, test = (
        torch.randn(n, 5, generator=draws, dtype=torch.float64) for n in (6, 300, 1000)
    )
    c = torch.randn(6, generator=draws, dtype=torch.float64)
    norm = math.sqrt(float(c @ tangent.kernel(anchors)[0] @ c))
    values, held_out = (c @ tangent.kernel(anchors, points)[0] for points in (x, test))
    diagonal = tangent.jacobian(test).square().sum((1, 2))
    kernel, cross = tangent.kernels(x, test)
    violated, bounds, risks, direct = 0.0, [], [], []
    for n in (8, 30, 100, 300):
        student = KernelStudent(kernel[:, :n, :n], ridge=1e-12)
        predicted = student.predict(values[:n, None], cross[:, :, :n])[:, 0]
        risks.append(float((predicted * held_out < 0).double().mean()))
        length = student.norm(values[:n, None])
        bounds.append(risk_bound(length, norm, held_out, diagonal))
        violated = max(violated, risks[-1] - bounds[-1])
        weights = student.solve(values[:n, None])[0]
        inner = float(weights @ (tangent.kernel(x[:n], anchors)[0] @ c))
        direct.append(
            abs(oracle_angle(length, norm) - math.acos(min(1.0, inner / (length * norm))))
        )
    return [
        figure("E: bound at 300 samples", [bounds[-1]]),
        figure("E: risk at 300 samples", [risks[-1]]),
        at_most("E: risk above its bound", [violated], 0, paper="the bound holds"),
        at_most("E: angle from norms against the direct one", direct, 1e-3),
        at_most("E: bound at 300 over bound at 8 samples", [bounds[-1] / bounds[0]], 0.99),
    ]


def picks(scale: Scale) -> list[Claim]:
    """F: even against odd digits; does the predicted grid rank trained students?"""
    from scipy.stats import spearmanr
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    images, numbers = load_digits(return_X_y=True)
    order = torch.randperm(len(numbers), generator=generator(6, NAME))
    x = torch.from_numpy(images).double()[order] / 16
    y = (torch.from_numpy(numbers)[order] % 2).long()
    n, held_out = max(100, part(500, scale.share)), slice(1000, None)
    teacher = LogisticRegression(max_iter=500, C=0.05).fit(x[:1000].numpy(), y[:1000].numpy())
    said_by = torch.from_numpy(teacher.decision_function(x.numpy()))
    tangent = Tangent(_mlp(0))
    kernel, cross = tangent.kernels(x[:n], x[held_out])
    start = (tangent.outputs(x[:n]), tangent.outputs(x[held_out]))
    grid = difficulty(
        kernel, cross, start, said_by[:n, None], (y[:n], y[held_out]), temperatures=(1.0, 4.0)
    )
    trained = []
    for cell in grid.cells:
        model = _mlp(1)
        _train(model, x[:n], said_by[:n], y[:n], (cell.soft_ratio, cell.temperature), scale)
        with torch.no_grad():
            trained.append(float(((model(x[held_out])[:, 0] > 0) != y[held_out]).double().mean()))
    rank = float(spearmanr([cell.error for cell in grid.cells], trained).statistic)
    picked = trained[list(grid.cells).index(grid.best)]
    scale.report(
        f"digits: rank correlation {rank:.2f}, picked {picked:.4f}, best {min(trained):.4f}"
    )
    return [
        at_least("F: rank correlation of predicted and trained error", [rank], 0.7),
        at_most(
            "F: trained error of the pick over the best, points", [100 * (picked - min(trained))], 1
        ),
        figure("F: error of the teacher, percent", [100 * grid.teacher_error]),
    ]


def _mlp(seed: int) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 1)).double()


def _train(
    model: nn.Module, x: Tensor, z: Tensor, y: Tensor, mix: tuple[float, float], scale: Scale
) -> None:
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
    draws = generator(7, NAME)
    for _ in range(part(120, scale.share)):
        for rows in torch.split(torch.randperm(len(x), generator=draws), 50):
            optimizer.zero_grad()
            mixed_loss(model(x[rows])[:, 0], z[rows], y[rows], *mix).backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def matrix_free() -> Claim:
    """G: products with the kernel of a convolutional network without its gradients."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(128, 10),
        ).double()
    x = torch.rand(12, 1, 12, 12, generator=generator(8, NAME), dtype=torch.float64)
    vector = torch.randn(12, 10, generator=generator(9, NAME), dtype=torch.float64)
    tangent = Tangent(model)
    exact = torch.einsum("nmcd,md->nc", tangent.kernel(x, full=True), vector)
    difference = float((tangent.product(x, vector) - exact).abs().max() / exact.abs().max())
    return at_most("G: matrix-free products against the kernel, relative", [difference], 1e-10)
