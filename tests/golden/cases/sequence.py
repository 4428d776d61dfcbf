"""Golden cases of the losses on token distributions."""

from __future__ import annotations

import torch
import torch.nn.functional as tf

import limbeck.functional as F

IGNORE = -100


def tokens(loss, *, scale=lambda v: 1.0, **names):
    """A case of a token loss; `names` gives our keyword and, of the file's, how to compute it."""

    def case(v):
        options = {name: value(v) if callable(value) else value for name, value in names.items()}
        if v.get("T") is not None:
            options["temperature"] = v.T
        return scale(v) * loss(v.logits_s, v.logits_t, v.get("labels"), **options)

    return case


def squared(v):
    return v.T**2


def akl(v):
    share = F.akl_head_share(v.logits_s, v.logits_t, mass=v.mu)
    return {
        "loss": F.akl_loss(v.logits_s, v.logits_t, v.labels, mass=v.mu),
        "head_ratio": share,
        "tail_ratio": 1 - share,
    }


def uld(v, **options):
    return F.uld_loss(
        v.logits_s,
        v.logits_t,
        v.labels_s,
        v.labels_t,
        temperature=v.T_s,
        teacher_temperature=v.T_t,
        skip_student_end=bool(v.skip_student_eos),
        skip_teacher_end=bool(v.skip_teacher_eos),
        **options,
    )


def uld_sum(v):
    """Sum over samples and tokens, labels in place, no temperature."""
    counts = [(labels != IGNORE).sum(1) for labels in (v.labels_s, v.labels_t)]
    per_sample = F.uld_loss(
        v.logits_s, v.logits_t, v.labels_s, v.labels_t, shift=False, reduction="none"
    )
    return (per_sample * torch.minimum(*counts)).sum()


def liger_kl(v):
    """Their reduction `mean` is over all elements, `batchmean` is ours."""
    reduction = "sum" if v.reduction == "sum" else "mean"
    loss = F.fkl_loss(v.logq_s, v.logp_t, normalized=True, reduction=reduction)
    return loss / v.logq_s.shape[-1] if v.reduction == "mean" else loss


def liger_tvd(v):
    loss = F.tvd_loss(v.p_s.log(), v.q_t.log(), v.get("labels"), normalized=True)
    return loss / v.p_s.shape[-1] if v.reduction == "mean" else loss


def fused(v, function=F.fused_linear_loss, **options):
    return function(
        v.student_input,
        v.student_weight,
        v.teacher_input,
        v.teacher_weight,
        v.get("labels"),
        student_bias=v.get("student_bias"),
        teacher_bias=v.get("teacher_bias"),
        chunk=4,
        **options,
    )


def hard_and_soft(v):
    def loss(student, teacher, target, *, ignore_index, reduction):
        options = {"ignore_index": ignore_index, "reduction": reduction}
        hard = tf.cross_entropy(student, target, **options)
        soft = F.gkd_jsd_loss(student, teacher, target, beta=v.beta, temperature=v.T, **options)
        return v.w_hard * hard + v.w_soft * soft

    return fused(v, loss=loss)


def fused_jsd(v):
    return fused(v, F.fused_linear_jsd_loss, beta=v.beta, temperature=v.T)


CASES = {
    "gkd_jsd.trl": tokens(F.gkd_jsd_loss, beta=lambda v: v.beta),
    "gkd_jsd.trl_v0_17_nolabels_tokenmean": tokens(F.gkd_jsd_loss, beta=lambda v: v.beta),
    "fkl.trl_beta0": tokens(F.fkl_loss),
    "fkl.distillm_ce": tokens(F.fkl_loss, cross_entropy=True),
    "fkl.dskd_sum": tokens(F.fkl_loss, reduction="sum"),
    "fkl.distillkit_T2": tokens(F.fkl_loss, scale=squared),
    "rkl.trl_beta1": tokens(F.rkl_loss),
    "rkl.distillm": tokens(F.rkl_loss),
    "rkl.dskd_sum": tokens(F.rkl_loss, reduction="sum"),
    "symkl.distillm": tokens(F.symkl_loss, reverse=lambda v: v.lam, cross_entropy=True),
    "symkl.torchtune": tokens(
        F.symkl_loss, reverse=lambda v: 1 - v.sym_kd_ratio, cross_entropy=True
    ),
    "jsd.distillm": tokens(F.jsd_loss, beta=lambda v: 1 - v.lam),
    "jsd.dskd_sum": tokens(F.jsd_loss, reduction="sum"),
    "jsd.distillkit_T2": tokens(F.jsd_loss, scale=squared),
    "skl.distillm_ce": tokens(F.skl_loss, skew=lambda v: v.lam, cross_entropy=True),
    "skl.dskd_sum": tokens(F.skl_loss, skew=lambda v: v.lam, reduction="sum"),
    "srkl.distillm": tokens(F.srkl_loss, skew=lambda v: v.lam),
    "srkl.dskd_sum": tokens(F.srkl_loss, skew=lambda v: v.lam, reduction="sum"),
    "tvd.distillm": tokens(F.tvd_loss),
    "tvd.liger_ref": liger_tvd,
    "akl.official": akl,
    "akl.dskd_sum": tokens(
        F.akl_loss, mass=lambda v: 1 - v.alpha, boundary="head", reduction="sum"
    ),
    "uld.official": uld,
    "uld.trl_bayesian": uld,
    "uld.dskd_sum": uld_sum,
    "liger_jsd.torch_ref": lambda v: F.gkd_jsd_loss(
        v.logq_s, v.logp_t, v.get("labels"), beta=v.beta, normalized=True
    ),
    "liger_kl.torch_ref": liger_kl,
    "liger_fused_linear_jsd.torch_ref": fused_jsd,
    "liger_fused_linear_jsd.fkl_beta0": fused_jsd,
    "liger_fused_linear_jsd.rkl_beta1": fused_jsd,
    "liger_chunked_distill_jsd.hf_ref": hard_and_soft,
}

DEPARTURES = {
    "gkd_jsd.trl_nolabels": "divides by the batch size, not by the number of tokens",
    "gkd_jsd.trl_v0_15_swapped": "the mixture's weights are swapped",
    "gkd_jsd.trl_v0_11_geometric": "a geometric mean, which does not sum to 1, as the mixture",
    "uld.trl_observed": "answers start one position late",
}
