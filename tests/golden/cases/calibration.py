"""Golden cases of the calibration measures and of the batch ensemble's layer."""

from __future__ import annotations

import limbeck.functional as F


def batch_ensemble(v, offset=0):
    output = F.batch_ensemble_linear(v.x, v.weight, v.alpha + offset, v.gamma + offset, v.bias)
    return {"loss": (output * v.cotangent).sum(), "output": output}


CASES = {
    "ece.agreed_random": lambda v: F.ece(v.probs, v.labels, bins=v.n_bins),
    "ece_edges.giung2_guo": lambda v: F.ece(v.probs, v.labels, bins=v.n_bins),
    "ece_edges.netcal": lambda v: F.ece(v.probs, v.labels, bins=v.n_bins, closed="left"),
    "nll.sklearn": lambda v: F.nll(v.probs, v.labels),
    "nll_zeroprob.sklearn_eps": lambda v: F.nll(v.probs, v.labels, floor=2.220446049250313e-16),
    "batchensemble_linear.ensemble_bias": batch_ensemble,
    "batchensemble_linear.giung2_v2_one_plus": lambda v: batch_ensemble(v, offset=1),
    "nll_zeroprob.giung2_1e-12": lambda v: F.nll(v.probs, v.labels, floor=1e-12),
    "brier.sum_over_classes": lambda v: F.brier(v.probs, v.labels),
    "brier.binary_sklearn_auto": lambda v: F.brier(v.probs, v.labels) / 2,
}

DEPARTURES = {
    "batchensemble_linear.giung2_shared_bias": "one bias for all members, scaled by gamma",
    "ece_edges.torchmetrics": "confidence 1.0 falls into an extra bin",
}
