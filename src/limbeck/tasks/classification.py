"""Classification: one of C classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from limbeck.data.base import Data, Record
from limbeck.errors import InputError, nearest
from limbeck.functional import brier, ece
from limbeck.tasks.base import Task

Metric = Callable[[Tensor, Tensor], float]
"""A user's metric: (logits of shape (N, C), labels of shape (N,)) to a number, larger is better."""

LOWER_IS_BETTER = ("nll", "ece", "brier")


class Classification(Task):
    """Cross-entropy; accuracy, top-5, macro F1, NLL, ECE (15 bins) and Brier score.

    Args:
        classes: class names in label order.
        class_weights: weight of each class in the loss.
        label_smoothing: in [0, 1).
        extra: a user's metric by name.
    """

    name = "classification"

    def __init__(
        self,
        classes: Sequence[str],
        class_weights: Tensor | None = None,
        label_smoothing: float = 0.0,
        extra: dict[str, Metric] | None = None,
    ) -> None:
        if class_weights is not None and len(class_weights) != len(classes):
            raise InputError(
                f"training.class_weights has {len(class_weights)} weights for {len(classes)} "
                f"classes; give one a class, or 'balanced'"
            )
        self.classes = tuple(classes)
        self.class_weights = class_weights
        self.label_smoothing = label_smoothing
        self.extra = extra or {}

    @property
    def outputs(self) -> int:  # noqa: D102
        return len(self.classes)

    def check(self, data: Data) -> None:  # noqa: D102
        if len(data.classes) < 2:
            raise InputError(
                f"classification needs labels of at least two classes; {data.name!r} has "
                f"{len(data.classes)}"
            )
        if data.val.y is not None:
            # A user's metric that fails should do so now, not after the first epoch.
            y = data.val.y.cpu()
            for metric in self.extra.values():
                metric(torch.zeros(len(y), len(data.classes)), y)

    def loss(self, logits: Tensor, batch: Record) -> Tensor:
        """Cross-entropy in float32; samples that mixup or cutmix blended get both labels."""
        y = batch["y"]
        logits = logits[: len(y)].float()
        if "mix" not in batch:
            return self._cross_entropy(logits, y, "mean")
        share = batch["mix"][: len(y)]
        ours = self._cross_entropy(logits, y, "none")
        partner = self._cross_entropy(logits, batch["y_mix"], "none")
        return (share * ours + (1 - share) * partner).mean()

    def _cross_entropy(self, logits: Tensor, y: Tensor, reduction: str) -> Tensor:
        weights = self.class_weights
        if weights is not None and weights.device != logits.device:
            weights = self.class_weights = weights.to(logits.device)
        return F.cross_entropy(
            logits, y, weights, label_smoothing=self.label_smoothing, reduction=reduction
        )

    def metrics(self, logits: Tensor, y: Tensor) -> dict[str, float]:  # noqa: D102
        logits = logits.float()
        guess = logits.argmax(-1)
        values = {
            "accuracy": (guess == y).float().mean().item(),
            "f1": _macro_f1(guess, y, len(self.classes)),
            "nll": F.cross_entropy(logits, y).item(),
            "ece": float(ece(logits.softmax(-1), y)),
            "brier": float(brier(logits.softmax(-1), y)),
        }
        if len(self.classes) > 10:
            values["top5"] = (logits.topk(5).indices == y[:, None]).any(-1).float().mean().item()
        return values | {name: float(metric(logits, y)) for name, metric in self.extra.items()}

    def predict(self, logits: Tensor) -> dict[str, Tensor]:
        """`label` (int64), `confidence` in [0, 1], and `probabilities` of shape (N, C)."""
        probabilities = logits.float().softmax(-1)
        confidence, label = probabilities.max(-1)
        return {"label": label, "confidence": confidence, "probabilities": probabilities}

    def better(self, metric: str) -> int:  # noqa: D102
        known = ["accuracy", "f1", "top5", *LOWER_IS_BETTER, *self.extra]
        if metric not in known:
            raise InputError(
                f"unknown metric {metric!r}{nearest(metric, known)}; classification has "
                f"{', '.join(known)}, or your own as 'module:function'"
            )
        return -1 if metric in LOWER_IS_BETTER else 1


def _macro_f1(guess: Tensor, y: Tensor, classes: int) -> float:
    """Unweighted mean over the classes of 2 TP / (2 TP + FP + FN); 0 for a class never seen."""
    hits = torch.bincount(y[guess == y], minlength=classes).float()
    total = torch.bincount(y, minlength=classes) + torch.bincount(guess, minlength=classes)
    return (2 * hits / total.clamp(min=1)).mean().item()
