"""Golden cases of feature, relation and contrastive losses and of the heads that they need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from cases import Vector
from limbeck import functional as F
from limbeck.nn import fusion, heads, memory


def layers(v: Vector, stem: str) -> list[Tensor]:
    """`stem_0`, `stem_1`, ... as a list, as many as the file holds."""
    found = []
    while (tensor := v.get(f"{stem}_{len(found)}")) is not None:
        found.append(tensor)
    return found


def call(module: nn.Module, weights: dict[str, Tensor | None], *inputs: Any) -> Any:
    """`module` in training mode with the weights of the file in place of its own."""
    given = {name: tensor for name, tensor in weights.items() if tensor is not None}
    return functional_call(module.to(next(iter(given.values())).dtype), given, inputs)


def connector(v: Vector, features: Tensor, **options: Any) -> Tensor:
    teacher, student, kernel, _ = v.conv_w.shape
    module = heads.Connector(student, teacher, kernel=kernel, **options)
    names = {
        "conv.weight": "conv_w",
        "conv.bias": "conv_b",
        "norm.weight": "bn_w",
        "norm.bias": "bn_b",
    }
    return call(module, {name: v.get(key) for name, key in names.items()}, features)


def plain(loss: Callable[..., Tensor], **names: str) -> Callable[[Vector], Tensor]:
    """A loss on `f_s` and `f_t`; `names` gives each option the hyperparameter that holds it."""
    return lambda v: loss(v.f_s, v.f_t, **{option: getattr(v, n) for option, n in names.items()})


def fitnet_regressor(v: Vector) -> Tensor:
    stride, padding = int(v.stride), int(v.padding)
    return F.fitnet_loss(connector(v, v.f_s, bias=True, stride=stride, padding=padding), v.f_t)


def fitnet_mmrazor(v: Vector) -> Tensor:
    per = "element" if v.div_element else "sample"
    loss = F.fitnet_loss(v.f_s, v.f_t, per=per, normalize=bool(v.normalize))
    return loss * v.mult**2 if v.normalize else loss


def vid(v: Vector) -> Tensor:
    teacher, student = v.w1.shape[:2]
    names = {"mean.0.weight": v.w1, "mean.2.weight": v.w2, "mean.4.weight": v.w3}
    features, target = F.match_grids(v.f_s, v.f_t)
    mean = call(heads.VariationalHead(student, teacher), names, features)
    return F.vid_loss(mean, target, log_scale=v.log_scale, eps=v.eps)


def fsp(v: Vector) -> Tensor:
    return F.fsp_loss(layers(v, "f_s"), layers(v, "f_t"))


def ab_layers(v: Vector) -> Tensor:
    pairs = list(zip(layers(v, "f_s"), layers(v, "f_t"), strict=True))
    scale = [3 / 1000 * 2.0 ** (layer + 1 - len(pairs)) for layer in range(len(pairs))]
    return sum(k * F.ab_loss(s, t, margin=v.margin) for k, (s, t) in zip(scale, pairs, strict=True))


def ofd(reduction: str) -> Callable[[Vector], dict[str, Tensor]]:
    def case(v: Vector) -> dict[str, Tensor]:
        margin = F.ofd_margin(v.bn_weight, v.bn_bias)
        loss = F.ofd_loss(v.f_s, v.f_t, margin=margin, reduction=reduction)
        return {"loss": loss, "margin": margin}

    return case


def ft_torchdistill(v: Vector) -> Tensor:
    return F.factor_loss(v.f_s, v.f_t, p=v.p, per="element" if v.p == 1 else "sample")


def crd(v: Vector) -> dict[str, Tensor]:
    size, dtype = v.embed_s_w.shape[0], v.embed_s_w.dtype
    module = memory.ContrastMemory(
        v.n_data, size, negatives=v.nce_k, temperature=v.nce_t, momentum=v.nce_m
    ).to(dtype)
    module.student_rows.copy_(v.memory_v1)
    module.teacher_rows.copy_(v.memory_v2)
    if v.get("Z") is not None:
        module.normalizers.copy_(v.Z)
    embedded = [
        call(memory.Embedding(x[0].numel(), size), {"linear.weight": w, "linear.bias": b}, x)
        for x, w, b in (
            (v.f_s, v.embed_s_w, v.embed_s_b),
            (v.f_t, v.embed_t_w, v.embed_t_b),
        )
    ]
    loss = module(*embedded, v.idx, v.contrast_idx[:, 1:])
    return {
        "loss": loss,
        "Z": module.normalizers,
        "memory_v1": module.student_rows,
        "memory_v2": module.teacher_rows,
    }


def ickd(v: Vector) -> Tensor:
    return F.ickd_loss(connector(v, v.f_s, relu=False), v.f_t)


def srrl_official(v: Vector) -> Tensor:
    student = connector(v, v.f_s)
    logits = [x.mean((2, 3)) @ v.cls_w.T + v.cls_b for x in (student, v.f_t)]
    return F.srrl_loss(student, v.f_t, *logits, logit_weight=v.weight)


def srrl_simkd(v: Vector) -> Tensor:
    student = connector(v, v.f_s[:, :, None, None]).flatten(1)
    logits = [x @ v.cls_w.T + v.cls_b for x in (student, v.f_t)]
    return F.srrl_loss(student, v.f_t, *logits)


def srrl_cls_kd(v: Vector) -> Tensor:
    weights = {"feature_weight": v.alpha, "logit_weight": v.beta}
    return F.srrl_loss(v.f_s, v.f_t, v.logit_st, v.logit_t, **weights)


def semckd(v: Vector) -> dict[str, Tensor]:
    student, teacher = layers(v, "f_s"), layers(v, "f_t")
    module = fusion.LayerAssociation(
        [x.shape[1] for x in student],
        [x.shape[1] for x in teacher],
        batch=len(student[0]),
        factor=v.factor,
        softness=v.get("soft", 1.0),
    )
    weights = {}
    for part, stem, count in (("queries", "q", len(student)), ("keys", "k", len(teacher))):
        for i in range(count):
            for layer, number in ((0, 1), (2, 2)):
                weights[f"{part}.{i}.{layer}.weight"] = v.get(f"{stem}{i}_w{number}")
                weights[f"{part}.{i}.{layer}.bias"] = v.get(f"{stem}{i}_b{number}")
    for i in range(len(student)):
        for j in range(len(teacher)):
            for layer, number in ((0, 1), (3, 2), (6, 3)):
                weights[f"regressors.{i}.{j}.{layer}.weight"] = v.get(f"r{i}{j}_c{number}")
    projected, targets, attention = call(module, weights, student, teacher)
    return {"loss": F.semckd_loss(projected, targets, attention), "attention": attention}


def simkd(v: Vector) -> dict[str, Tensor]:
    teacher, student = v.c3.shape[0], v.c1.shape[1]
    names = {"0.weight": v.c1, "3.weight": v.c2, "6.weight": v.c3}
    for layer, norm in ((1, "bn1"), (4, "bn2"), (7, "bn3")):
        names[f"{layer}.weight"] = v.get(f"{norm}_w")
        names[f"{layer}.bias"] = v.get(f"{norm}_b")
    features, target = F.match_grids(v.f_s, v.f_t)
    module = heads.ReuseProjector(student, teacher, factor=v.factor)
    projected = call(module, {f"layers.{k}": t for k, t in names.items()}, features)
    prediction = projected.mean((2, 3)) @ v.cls_w.T + v.cls_b
    return {"loss": F.simkd_loss(projected, target), "pred_logits": prediction}


def catkd_switches(v: Vector) -> Tensor:
    # The official comparison is strict: it keeps one class fewer than its option says.
    partial = {"keep": v.cams_nums - 1, "teacher_logits": v.logits_t} if v.partial else {}
    return v.w * F.catkd_loss(
        v.f_s,
        v.f_t,
        resolution=v.resolution,
        normalize=bool(v.normalize),
        binarize=bool(v.binarize),
        **partial,
    )


def mgd(mask: str) -> Callable[[Vector], dict[str, Tensor]]:
    def case(v: Vector) -> dict[str, Tensor]:
        module = heads.MaskedGenerator(v.f_s.shape[1], v.f_t.shape[1], ratio=v.lam, mask=mask)
        weights = {
            "generation.0.weight": v.g1_w,
            "generation.0.bias": v.g1_b,
            "generation.2.weight": v.g2_w,
            "generation.2.bias": v.g2_b,
            "align.weight": v.get("align_w"),
            "align.bias": v.get("align_b"),
        }
        restored = call(module, weights, v.f_s, v.rand)
        return {"loss": F.mgd_loss(restored, v.f_t, alpha=v.alpha), "mask": module.mask(v.rand)}

    return case


def rkd_mmrazor(v: Vector, **off: float) -> Tensor:
    weights = {"distance_weight": v.loss_weight, "angle_weight": v.loss_weight} | off
    return F.rkd_loss(v.f_s, v.f_t, normalize=True, **weights)


CASES = {
    "fitnet.mse_mean": plain(F.fitnet_loss),
    "fitnet.lenscloth_1x1": lambda v: F.fitnet_loss(nn.functional.conv2d(v.f_s, v.conv_w), v.f_t),
    "fitnet.mdistiller_convreg": fitnet_regressor,
    "fitnet.mmrazor_l2": fitnet_mmrazor,
    "at.zagoruyko": plain(F.at_loss),
    "at.repdistiller_p_pool": plain(F.at_loss, power="p"),
    "at.torchdistill_paper": lambda v: F.at_loss(v.f_s, v.f_t, form="norm"),
    "at.aberhu_abs_eps": lambda v: F.at_loss(v.f_s, v.f_t, power=v.p, form="absolute"),
    "sp.repdistiller_rowL2": plain(F.sp_loss),
    "cc.aberhu_rbf": plain(F.cc_loss, gamma="gamma", order="P_order"),
    "rkd.distance": plain(F.rkd_distance_loss),
    "rkd.angle": plain(F.rkd_angle_loss),
    "rkd.combined": plain(F.rkd_loss, distance_weight="w_d", angle_weight="w_a"),
    "rkd.mmrazor_l2norm_distance": lambda v: rkd_mmrazor(v, angle_weight=0.0),
    "rkd.mmrazor_l2norm_angle": lambda v: rkd_mmrazor(v, distance_weight=0.0),
    "rkd.kdlib": plain(F.rkd_loss, distance_weight="dist_ratio", angle_weight="angle_ratio"),
    "pkt.official": plain(F.pkt_loss),
    "pkt.aberhu_eps1e-6": lambda v: F.pkt_loss(v.f_s, v.f_t, eps=1e-6),
    "vid.repdistiller": vid,
    "nst.repdistiller": plain(F.nst_loss),
    "fsp.repdistiller": fsp,
    "ab.official_sum": lambda v: F.ab_loss(v.f_s, v.f_t, margin=v.margin, reduction="sum"),
    "ab.repdistiller_layers": ab_layers,
    "ab.aberhu_mean": lambda v: F.ab_loss(v.f_s, v.f_t, margin=v.margin, per="element"),
    "ft.official": plain(F.factor_loss),
    "ft.torchdistill_p2": ft_torchdistill,
    "crd.repdistiller_first_call": crd,
    "crd.repdistiller_given_Z": crd,
    "reviewkd_hcl.official": lambda v: F.reviewkd_hcl_loss(layers(v, "f_s"), layers(v, "f_t")),
    "ofd.clovaai_sum": ofd("sum"),
    "ofd.mdistiller": ofd("mean"),
    "ofd.mmrazor": lambda v: v.loss_weight / v.mul_factor * F.ofd_loss(v.f_s, v.f_t),
    "ickd.official_cifar": ickd,
    "srrl.official": srrl_official,
    "srrl.clsKD": srrl_cls_kd,
    "srrl.simkd_repo": srrl_simkd,
    "semckd.official": semckd,
    "semckd.simkd_repo_soft": semckd,
    "simkd.official": simkd,
    "catkd.cat_loss": lambda v: F.catkd_loss(
        v.f_s, v.f_t, resolution=v.resolution, normalize=bool(v.normalize)
    ),
    "catkd.forward_binarize_partial": catkd_switches,
    "mgd.spatial_mask": mgd("positions"),
    "mgd.channel_mask_cls": mgd("channels"),
    "cwd.channel_kl": plain(F.cwd_loss, temperature="T"),
    "cwd.spatial_kl": lambda v: F.cwd_loss(v.f_s, v.f_t, temperature=v.T, over="channels"),
}

DEPARTURES = {
    "at.kdlib_nochannelsum": "keeps the channels apart, so that nothing is an attention map",
    "sp.torchdistill_rowL1": "divides rows by their L1 norm (a positional slip), the paper by L2",
    "cc.repdistiller_author": "multiplies neighbors in the batch; depends on the samples' order",
    "cc.torchdistill_gaussian": "norm not squared, and a unit-norm formula on raw features",
    "cc.torchdistill_bilinear": "norm not squared, where the paper squares it",
    "fsp.torchdistill": "sums norms of the matrix's columns, where the paper squares the entries",
    "ft.repdistiller_attention": "sums out the channels: attention transfer, not factor transfer",
    "ofd.aberhu_batchmargin": "estimates the margin from the batch instead of the normalization",
    "ickd.torchdistill_chsim": "divides by the batch size twice",
}
