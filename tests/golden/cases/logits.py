"""Golden cases of the losses on logits."""

from __future__ import annotations

import json

import torch
import torch.nn.functional as tf

import limbeck.functional as F


def ctkd(v):
    options = {"strength": v.lam, "start": v.t_start, "span": v.t_end}
    return {
        "loss": F.ctkd_loss(v.logits_s, v.logits_t, v.global_T, **options),
        "temperature": F.ctkd_temperature(v.global_T, **options).squeeze(),
    }


def ctkd_schedule(v):
    options = {
        "kind": v.kind,
        "highest": v.max_value,
        "lowest": v.min_value,
        "epochs": v.num_loops,
    }
    values = [F.ctkd_strength(epoch, **options) for epoch in v.epochs.tolist()]
    return {"loss": torch.tensor(sum(values)), "values": torch.tensor(values, dtype=torch.float64)}


def tfkd_reg(v, multiplier=1.0, alpha=None):
    """The published mean is over B·C elements."""
    alpha = v.alpha if alpha is None else alpha
    virtual = F.tfkd_reg_loss(v.logits_s, v.target, temperature=v.T, correct=v.correct_prob)
    hard = tf.cross_entropy(v.logits_s, v.target)
    return (1 - alpha) * hard + alpha * multiplier * virtual / v.logits_s.shape[1]


def tfkd_self(v):
    soft = F.tfkd_self_loss(v.logits_s, v.logits_t, temperature=v.T) / v.logits_s.shape[1]
    return (1 - v.alpha) * tf.cross_entropy(v.logits_s, v.target) + v.alpha * v.multiplier * soft


def pskd(v):
    weight = F.pskd_weight(v.epoch, v.end_epoch, final=v.alpha_T)
    return F.pskd_loss(v.logits_s, v.past_probs.log(), v.target, weight=weight)


def cohort(v):
    losses = []
    for k, own in enumerate(v.logits):
        peers = [peer for i, peer in enumerate(v.logits) if i != k]
        losses.append(tf.cross_entropy(own, v.target) + F.dml_loss(own, peers))
    return {"loss": sum(losses), "loss_per_net": torch.stack(losses)}


def sdd_pool(v):
    scales = json.loads(v.M) if isinstance(v.M, str) else v.M
    output = F.sdd_pool(v.feat, scales=scales)
    return {"loss": (output * v.cotangent).sum(), "output": output}


def labels_and(v, alpha, loss, **options):
    """alpha · cross-entropy to the labels + (1 − alpha) · the distillation loss."""
    soft = loss(v.logits_s, v.logits_t, temperature=v.T, **options)
    return alpha * tf.cross_entropy(v.logits_s, v.target) + (1 - alpha) * soft


def dkd(v, **options):
    weights = {"alpha": v.alpha, "beta": v.beta}
    return F.dkd_loss(v.logits_s, v.logits_t, v.target, temperature=v.T, **weights, **options)


CASES = {
    "kd.batchmean_T2": lambda v: F.kd_loss(v.logits_s, v.logits_t, temperature=v.T),
    "kd.torchdistill_alpha": lambda v: labels_and(v, v.alpha, F.kd_loss),
    "kd.szagoruyko_alpha": lambda v: labels_and(v, 1 - v.alpha, F.kd_loss),
    "kd.softce_clsKD": lambda v: (
        v.alpha * F.kd_loss(v.logits_s, v.logits_t, temperature=v.T, cross_entropy=True)
    ),
    "dkd.megvii": dkd,
    "nkd.yzd": lambda v: F.nkd_loss(
        v.logits_s, v.logits_t, v.target, temperature=v.T, gamma=v.gamma
    ),
    "dist.tau2": lambda v: F.dist_loss(
        v.logits_s, v.logits_t, temperature=v.tau, beta=v.beta, gamma=v.gamma
    ),
    "dist.seg4d": lambda v: F.dist_loss(v.logits_s, v.logits_t, beta=v.beta, gamma=v.gamma),
    "lskd.kd": lambda v: F.lskd_loss(v.logits_s, v.logits_t, temperature=v.T),
    "lskd.torchdistill_alpha": lambda v: labels_and(v, v.alpha, F.lskd_loss),
    "lskd.dkd": lambda v: dkd(v, standardize=True),
    "mlkd.cc_loss": lambda v: F.mlkd_class_loss(v.logits_s, v.logits_t, temperature=v.T),
    "mlkd.bc_loss": lambda v: F.mlkd_batch_loss(v.logits_s, v.logits_t, temperature=v.T),
    "ctkd.global_T": ctkd,
    "ctkd.lambda_schedule": ctkd_schedule,
    "wsld.mmrazor": lambda v: (
        v.loss_weight * F.wsld_loss(v.logits_s, v.logits_t, v.target, temperature=v.T)
    ),
    "wsld.official_with_ce": lambda v: (
        tf.cross_entropy(v.logits_s, v.target)
        + v.alpha * F.wsld_loss(v.logits_s, v.logits_t, v.target, temperature=v.T)
    ),
    "sdd.dkd": lambda v: F.sdd_loss(
        v.logits_s, v.logits_t, v.target, temperature=v.T, alpha=v.alpha, beta=v.beta
    ),
    "sdd.spp_pool": sdd_pool,
    "tfkd_reg.official": lambda v: tfkd_reg(v, v.multiplier),
    "tfkd_reg.kdlib_virtual_teacher": lambda v: tfkd_reg(v, alpha=v.w),
    "tfkd_self.official": tfkd_self,
    "pskd.official": pskd,
    "dml.aberhu": lambda v: F.dml_loss(v.logits_s, v.logits_t),
    "dml.official_tf": lambda v: F.dml_loss(v.logits_s, v.logits_t),
    "dml.cohortK": cohort,
}

DEPARTURES = {
    "kd.elementmean_T2": "mean over classes too: 1/C of the paper's value",
    "kd.torchdistill_noT2": "T² dropped where alpha is 0",
    "kd.tfkd_losskd_elementmean": "mean over classes too: 1/C of the paper's value",
    "kd.kdlib_mse": "squared difference of softened probabilities instead of the KL",
    "dkd.mmrazor_reduction_mean": "sum over the batch instead of its mean",
    "nkd.sddrepo_allclasses": "the target class stays in the non-target term",
    "sdd.nkd": "the target class stays in the non-target term",
    "mlkd.full_as_released": "masks multiply terms that are already averaged",
}
