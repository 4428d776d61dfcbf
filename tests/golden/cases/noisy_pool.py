"""A noisy teacher and a pool: SLaM, calibration of the teacher, and weights that debias."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

import limbeck.functional as F
from cases import Arrays, Close
from limbeck.functional.debias import nearest
from limbeck.functional.noise import isotonic, margins, ranks
from limbeck.theory import slam_perceptron

FORMS = {"plain": False, "norm": True}


def tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(values))


def relative(name: str, ours: object, stored: np.ndarray, tolerance: float) -> Close:
    return Close(name, ours, stored, tolerance * np.maximum(np.abs(stored), 1e-300))


def slam_loss_grad(arrays: Arrays) -> Iterator[Close]:
    student = tensor(arrays["student_logits"]).requires_grad_()
    probs = tensor(arrays["teacher_probs"])
    options = {"alpha": tensor(arrays["alpha"]), "k": tensor(arrays["k"])}
    for form, normalize in FORMS.items():
        mix = F.slam_mix(student, probs, normalize=normalize, **options)
        yield relative(f"mix_{form}", mix, arrays[f"mix_{form}"], 1e-12)
        for kind, hard in (("soft", False), ("hard", True)):
            loss = F.slam_loss(
                student, probs, hard=hard, normalize=normalize, reduction="none", **options
            )
            stored = arrays[f"loss_{form}_{kind}"]
            yield Close(f"loss_{form}_{kind}", loss, stored, 1e-12 * (1 + np.abs(stored)))
            (gradient,) = torch.autograd.grad(loss.sum(), student)
            yield Close(f"grad_{form}_{kind}", gradient, arrays[f"grad_{form}_{kind}"], 1e-11)


def slam_consistency(arrays: Arrays) -> Iterator[Close]:
    columns = arrays["columns"].tolist()
    for number, values in enumerate(arrays["table"]):
        row = dict(zip(columns, values.tolist(), strict=True))
        for form, normalize in FORMS.items():
            expected = Expected(row, normalize)
            truth = expected(expected.vertices[:1]).item()
            yield Close(f"row {number} {form} at truth", truth, row[f"{form}_at_truth"], 1e-6)
            yield Close(
                f"row {number} {form} minimum", expected.minimum(), row[f"{form}_min"], 1e-6
            )


class Expected:
    """The expected hard loss of a student, over the labels that a teacher gives of class 0."""

    def __init__(self, row: dict[str, float], normalize: bool) -> None:
        classes, others = int(row["C"]), int(row["k"]) - 1
        wrong = {0: np.ones(others), 1: 0.5 ** np.arange(others), 2: np.eye(others)[0]}
        shares = wrong[int(row["kind"])]
        rest = (1 - row["alpha"]) * shares / shares.sum()
        chances = torch.tensor([row["alpha"], *rest], dtype=torch.float64)
        self.chances = torch.cat([chances, chances.new_zeros(classes - 1 - others)])
        self.options = {"alpha": row["alpha"], "k": int(row["k"]), "normalize": normalize}
        self.vertices = 60 * torch.eye(classes, dtype=torch.float64)

    def __call__(self, student: Tensor) -> Tensor:
        """Student logits [B, C] to values [B]."""
        size, classes = student.shape
        labels = torch.eye(classes, dtype=torch.float64)
        # A hard label is always among the k classes, so their other members do not matter.
        losses = [
            F.slam_loss(student, one.expand(size, -1), hard=True, reduction="none", **self.options)
            for one in labels
        ]
        return (self.chances[:, None] * torch.stack(losses)).sum(0)

    def minimum(self) -> float:
        """Over the simplex, on which the loss is convex: of logarithms of affine functions."""
        classes = len(self.vertices)

        def value(f: np.ndarray) -> tuple[float, np.ndarray]:
            point = tensor(f)[None].requires_grad_()
            loss = self(point.log()).sum()
            return loss.item(), torch.autograd.grad(loss, point)[0][0].numpy()

        found = minimize(
            value,
            np.full(classes, 1 / classes),
            jac=True,
            method="SLSQP",
            bounds=[(1e-12, 1)] * classes,
            constraints={"type": "eq", "fun": lambda f: f.sum() - 1},
            options={"ftol": 1e-12, "maxiter": 200},
        )
        return min(self(self.vertices).min().item(), found.fun)


def isotonic_alpha(arrays: Arrays) -> Iterator[Close]:
    for case in ("a", "b", "c"):
        margin, right, weight, query = (
            arrays[f"{case}_{name}"] for name in ("margin", "correct", "weight", "query")
        )
        raw = isotonic(margin, right, weight)(query)
        bounded = isotonic(margin, right, weight, (0.5, 0.995))(query)
        yield Close(f"{case} raw", raw, arrays[f"{case}_alpha_raw"], 1e-12)
        for name in ("sklearn_bounded", "interp_of_clipped"):
            yield Close(f"{case} {name}", bounded, arrays[f"{case}_alpha_{name}"], 1e-12)
        clipped = np.clip(raw, 0.5, 0.995)  # what limbeck does not do: bounds after interpolation
        yield Close(f"{case} clipped last", clipped, arrays[f"{case}_alpha_lb50_ub995"], 1e-12)


def topk_k(arrays: Arrays) -> Iterator[Close]:
    probs, y, pool = (tensor(arrays[name]) for name in ("probs_val", "y_val", "probs_pool"))
    yield Close("rank_val", ranks(probs.numpy(), y.numpy()) + 1, arrays["rank_val"])
    for number, threshold in enumerate(arrays["thresholds"].tolist()):
        model = F.calibrate_noise(probs, y, coverage=threshold)
        yield Close(f"k_global at {threshold}", model.k_constant, arrays["k_global"][number])
        yield Close(f"k_sample at {threshold}", model.k(pool), arrays["k_sample"][number])
    yield Close("curve", model.top_accuracy(pool), arrays["topk_accuracy_curve"], 1e-12)


def wd_weights(hard: bool, arrays: Arrays) -> Iterator[Close]:
    names = ("student_val", "teacher_val", "y_val", "student_pool", "teacher_pool")
    given = [tensor(arrays[name]) for name in names]
    k = int(arrays["k"])
    plane = [
        np.stack([margins(arrays[f"teacher_{part}"]), margins(arrays[f"student_{part}"])], 1)
        for part in ("val", "pool")
    ]
    yield Close("margins", plane[0], arrays["record"][:, :2], 1e-12)
    yield Close("neighbours", nearest(*plane, k), arrays["neighbours"])
    p, distortion = (tensor(arrays[name]) for name in ("p", "distortion"))
    yield Close("debias", F.debias_weights(p, distortion), arrays["w_raw_A"], 1e-12)
    for letter, variant in (("A", "separate"), ("B", "mean"), ("C", "ratio")):
        options = {"hard": hard, "k": k, "variant": variant}
        raw = F.estimate_weights(*given, cap=None, rescale=False, **options)
        yield Close(f"w_raw_{letter}", raw, arrays[f"w_raw_{letter}"], 1e-12)
        capped = F.estimate_weights(*given, **options)
        yield Close(f"w_{letter}", capped, arrays[f"w_{letter}"], 1e-12)


def wd_unbiased(arrays: Arrays) -> Iterator[Close]:
    f, y = arrays["student_probs"], arrays["y"]
    rows = np.arange(len(y))
    p, q, log_f = arrays["p_wrong"], arrays["q_wrong"], -np.log(f)
    weights = F.debias_weights(tensor(p), tensor(arrays["distortion"])).numpy()
    true = log_f[rows, y]
    expected = weights * ((1 - p) * true + p * (q * log_f).sum(1))
    yield Close("w", weights, arrays["w"], 1e-12)
    yield Close("true loss", true, arrays["true_loss"], 1e-12)
    yield Close("unbiased", expected, true, 1e-12)
    yield Close("enumerated", expected, arrays["expected_weighted_loss_enumerated"], 1e-12)
    allowed = 4 * arrays["mc_weighted_se"]
    yield Close("Monte Carlo", expected.mean(), arrays["mc_weighted_mean"], allowed)


def halfspace_stream(arrays: Arrays) -> Iterator[Close]:
    x, y, alpha = (tensor(arrays[name]) for name in ("x", "y_noisy", "alpha"))
    for name, beta in (("half", 0.5), ("feature", 2 * alpha - 1)):
        found = slam_perceptron(x, y, beta)[arrays["checkpoints"] - 1]
        yield Close(f"w_beta_{name}", found, arrays[f"w_beta_{name}"], 1e-10)


FAMILIES = {
    r"halfspace_stream\w*": halfspace_stream,
    r"slam_loss_grad_(binary|c\d+)": slam_loss_grad,
    r"slam_consistency\w*": slam_consistency,
    r"isotonic_alpha\w*": isotonic_alpha,
    r"topk_k\w*": topk_k,
    r"wd_weights_hard\w*": lambda arrays: wd_weights(True, arrays),
    r"wd_weights_soft\w*": lambda arrays: wd_weights(False, arrays),
    r"wd_unbiased\w*": wd_unbiased,
}
