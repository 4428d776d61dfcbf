"""Pure tensor functions: student first, teacher second, options by keyword."""

from limbeck.functional._common import standardize
from limbeck.functional.adaptive_kl import akl_head_share, akl_loss
from limbeck.functional.attention import at_loss, catkd_loss, class_activation_maps, cwd_loss
from limbeck.functional.batch_ensemble import batch_ensemble_conv, batch_ensemble_linear
from limbeck.functional.boundaries import ab_loss, ofd_loss, ofd_margin
from limbeck.functional.calibration import brier, ece, nll
from limbeck.functional.contrastive import crd_loss, crd_normalizers, crd_scores
from limbeck.functional.debias import debias_weights, estimate_weights
from limbeck.functional.diversity import (
    calibrate_probabilities,
    deep_ensemble_equivalent,
    ensemble_curve,
    ensemble_diversity_loss,
    fit_temperature,
    log_mean_probability,
    member_kl,
    pairwise_disagreement,
    pairwise_kl,
)
from limbeck.functional.effective import (
    correction_threshold,
    effective_logits,
    soft_ratio,
    soft_weight,
)
from limbeck.functional.ensemble import (
    agreement_gate,
    ensemble_gradients,
    ensemble_losses,
    ensemble_weights,
    feature_gradients,
    gradient_cosines,
    gradient_gram,
    gram_weights,
    opposed_camps,
    teacher_agreement,
)
from limbeck.functional.features import (
    cosine_smooth_l1_loss,
    factor_loss,
    fitnet_loss,
    mgd_loss,
    pkd_loss,
    vid_loss,
)
from limbeck.functional.fused import fused_linear_loss
from limbeck.functional.fused_jsd import fused_linear_jsd_loss
from limbeck.functional.label_shift import label_shift
from limbeck.functional.layers import fsp_loss, reviewkd_hcl_loss, semckd_loss
from limbeck.functional.logit_relations import (
    dist_loss,
    mlkd_batch_loss,
    mlkd_class_loss,
    mlkd_loss,
)
from limbeck.functional.logits import (
    deit_hard_loss,
    deit_soft_loss,
    dkd_loss,
    kd_loss,
    logit_mse_loss,
    lskd_loss,
    nkd_loss,
    ofa_loss,
    wsld_loss,
    wttm_loss,
)
from limbeck.functional.maps import match_grids
from limbeck.functional.min_norm import min_norm_weights
from limbeck.functional.noise import calibrate_noise
from limbeck.functional.noise_evidence import noise_evidence
from limbeck.functional.outputs import bce_kd_loss, bounded_regression_loss, regression_loss
from limbeck.functional.perturbation import diversify, output_spread
from limbeck.functional.projected import simkd_loss, srd_loss, srrl_loss, vkd_loss
from limbeck.functional.regions import sdd_loss, sdd_pool
from limbeck.functional.relations import (
    cc_loss,
    ickd_loss,
    nst_loss,
    pkt_loss,
    rkd_angle_loss,
    rkd_distance_loss,
    rkd_loss,
    sp_loss,
)
from limbeck.functional.self_distillation import (
    dml_loss,
    pskd_loss,
    pskd_weight,
    tfkd_reg_loss,
    tfkd_self_loss,
)
from limbeck.functional.sequence import (
    fkl_loss,
    gkd_jsd_loss,
    jsd_loss,
    rkl_loss,
    skl_loss,
    srkl_loss,
    symkl_loss,
    tvd_loss,
)
from limbeck.functional.slam import forward_loss, slam_loss, slam_mix, taylor_loss
from limbeck.functional.temperature import ctkd_loss, ctkd_strength, ctkd_temperature
from limbeck.functional.topk import topk_kd_loss
from limbeck.functional.uld import uld_loss

__all__ = [
    "ab_loss",
    "agreement_gate",
    "akl_head_share",
    "akl_loss",
    "at_loss",
    "batch_ensemble_conv",
    "batch_ensemble_linear",
    "bce_kd_loss",
    "bounded_regression_loss",
    "brier",
    "calibrate_noise",
    "calibrate_probabilities",
    "catkd_loss",
    "cc_loss",
    "class_activation_maps",
    "correction_threshold",
    "cosine_smooth_l1_loss",
    "crd_loss",
    "crd_normalizers",
    "crd_scores",
    "ctkd_loss",
    "ctkd_strength",
    "ctkd_temperature",
    "cwd_loss",
    "debias_weights",
    "deep_ensemble_equivalent",
    "deit_hard_loss",
    "deit_soft_loss",
    "dist_loss",
    "diversify",
    "dkd_loss",
    "dml_loss",
    "ece",
    "effective_logits",
    "ensemble_curve",
    "ensemble_diversity_loss",
    "ensemble_gradients",
    "ensemble_losses",
    "ensemble_weights",
    "estimate_weights",
    "factor_loss",
    "feature_gradients",
    "fit_temperature",
    "fitnet_loss",
    "fkl_loss",
    "forward_loss",
    "fsp_loss",
    "fused_linear_jsd_loss",
    "fused_linear_loss",
    "gkd_jsd_loss",
    "gradient_cosines",
    "gradient_gram",
    "gram_weights",
    "ickd_loss",
    "jsd_loss",
    "kd_loss",
    "label_shift",
    "log_mean_probability",
    "logit_mse_loss",
    "lskd_loss",
    "match_grids",
    "member_kl",
    "mgd_loss",
    "min_norm_weights",
    "mlkd_batch_loss",
    "mlkd_class_loss",
    "mlkd_loss",
    "nkd_loss",
    "nll",
    "noise_evidence",
    "nst_loss",
    "ofa_loss",
    "ofd_loss",
    "ofd_margin",
    "opposed_camps",
    "output_spread",
    "pairwise_disagreement",
    "pairwise_kl",
    "pkd_loss",
    "pkt_loss",
    "pskd_loss",
    "pskd_weight",
    "regression_loss",
    "reviewkd_hcl_loss",
    "rkd_angle_loss",
    "rkd_distance_loss",
    "rkd_loss",
    "rkl_loss",
    "sdd_loss",
    "sdd_pool",
    "semckd_loss",
    "simkd_loss",
    "skl_loss",
    "slam_loss",
    "slam_mix",
    "soft_ratio",
    "soft_weight",
    "sp_loss",
    "srd_loss",
    "srkl_loss",
    "srrl_loss",
    "standardize",
    "symkl_loss",
    "taylor_loss",
    "teacher_agreement",
    "tfkd_reg_loss",
    "tfkd_self_loss",
    "topk_kd_loss",
    "tvd_loss",
    "uld_loss",
    "vid_loss",
    "vkd_loss",
    "wsld_loss",
    "wttm_loss",
]
