"""Losses over maps that a network's features draw: attention, class activation, channel shares."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from limbeck.errors import InputError
from limbeck.functional._common import Reduction, check_positive, full_precision, reduce
from limbeck.functional.maps import as_maps, check_choice, pair, per_sample, unit


def at_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    power: float = 2,
    form: Literal["squared", "norm", "absolute"] = "squared",
    reduction: Reduction = "mean",
) -> Tensor:
    """Difference of two normalized attention maps (AT: Zagoruyko and Komodakis, ICLR 2017, eq. 2).

    A feature's attention map A adds up its channels; n(A) has norm one in each sample. Maps of
    different sizes are average-pooled to the smaller grid first; channels may differ.

    Args:
        student: maps, or tokens of the teacher's number.
        teacher: maps or tokens.
        power: exponent p of the features.
        form: which published form.
            "squared": mean over positions of (n(A_s) - n(A_t))^2 with A the channel mean of f^p,
            as in the authors' code;
            "norm": ||n(A_s) - n(A_t)||, not squared, as in the paper's equation;
            "absolute": as "squared" with the sum of |f|^p and 1e-6 added to the norm, which is
            the paper's map for odd p.
        reduction: "mean", "sum" or "none" over the batch.

    Returns:
        A scalar, or (B,) with ``reduction="none"``.

    Raises:
        InputError: shapes that no pooling brings together, an empty batch, or another form.

    Reference code: szagoruyko/attention-transfer@893df54, HobbitLong/RepDistiller@b84f547 (any p,
    pooling), yoshitomo-matsubara/torchdistill@3e4373c ("norm"),
    AberHu/Knowledge-Distillation-Zoo@65470c8 ("absolute").
    """
    student, teacher = pair("at_loss", student, teacher, same="grid", ranks=(3, 4), pool=True)
    check_choice("form", form, "squared", "norm", "absolute")
    check_positive(power=power)
    if form == "absolute":
        difference = _absolute_attention(student, power) - _absolute_attention(teacher, power)
    else:
        maps = [unit(as_maps(x).pow(power).mean(1)) for x in (student, teacher)]
        difference = maps[0] - maps[1]
    if form == "norm":
        return reduce(torch.linalg.vector_norm(difference, dim=1), reduction)
    return reduce(per_sample(difference.square()), reduction)


def _absolute_attention(features: Tensor, power: float) -> Tensor:
    attention = as_maps(features).abs().pow(power).sum(1)
    norm: Tensor = torch.linalg.vector_norm(attention, dim=1, keepdim=True)
    return attention / (norm + 1e-6)


def catkd_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    resolution: int = 2,
    normalize: bool = True,
    binarize: bool = False,
    keep: int | None = None,
    teacher_logits: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Squared difference of class activation maps (CAT-KD: Guo et al., CVPR 2023).

    Args:
        student: one map a class (B, K, H, W), see `class_activation_maps`.
        teacher: one map a class (B, K, H', W').
        resolution: side of the grid to which both are average-pooled.
        normalize: divide each pooled map by its Euclidean norm.
        binarize: turn the teacher's maps into 1 above their mean absolute value and 0 elsewhere.
        keep: compare only this many classes, the highest of `teacher_logits` in each sample.
        teacher_logits: (B, K), needed with `keep`.
        reduction: "mean", "sum" or "none" over the batch.

    Returns:
        A scalar, or (B,) with ``reduction="none"``.

    Raises:
        InputError: numbers of classes that differ, an empty batch, or `keep` without logits.

    Reference code: GzyAftermath/CAT-KD@4467073.
    """
    student, teacher = pair("catkd_loss", student, teacher, same="channels", ranks=(4,))
    if binarize:
        threshold = teacher.abs().mean((2, 3), keepdim=True)
        teacher = (teacher > threshold).to(teacher.dtype)
    if keep is not None:
        if teacher_logits is None:
            raise InputError("keep of catkd_loss picks classes by teacher_logits, got none")
        chosen = teacher_logits.topk(keep, dim=1).indices
        student, teacher = _classes(student, chosen), _classes(teacher, chosen)
    maps = [adaptive_avg_pool2d(x, resolution).flatten(2) for x in (student, teacher)]
    if normalize:
        maps = [unit(x) for x in maps]
    return reduce(per_sample((maps[0] - maps[1]).square()), reduction)


def _classes(maps: Tensor, chosen: Tensor) -> Tensor:
    return maps.gather(1, chosen[:, :, None, None].expand(-1, -1, *maps.shape[2:]))


@full_precision
def class_activation_maps(features: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The maps of a linear classifier that averages positions (CAM: Zhou et al., CVPR 2016).

    Args:
        features: maps (B, C, H, W) before the global average pooling.
        weight: of the classifier, (K, C).
        bias: of the classifier, (K,).

    Returns:
        (B, K, H, W); the mean over positions is the classifier's logits.
    """
    maps = torch.einsum("bchw,kc->bkhw", features, weight.to(features.dtype))
    return maps if bias is None else maps + bias.view(-1, 1, 1)


def cwd_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float = 4.0,
    over: Literal["positions", "channels"] = "positions",
    reduction: Reduction = "mean",
) -> Tensor:
    """Divergence of each channel's distribution over positions (CWD: Shu et al., ICCV 2021).

    T^2 KL(softmax(t / T) || softmax(s / T)), averaged over channels.

    Args:
        student: maps or tokens.
        teacher: features of the same shape.
        temperature: T > 0.
        over: where a distribution sums to one: "positions", one distribution a channel, is the
            method; "channels", one a position, the paper's pixel-wise baseline.
        reduction: "mean", "sum" or "none" over the batch.

    Returns:
        A scalar, or (B,) with ``reduction="none"``.

    Raises:
        InputError: shapes that differ, an empty batch, or T <= 0.

    Reference code: irfanICMLL/TorchDistiller@78bac7c.
    """
    check_positive(temperature=temperature)
    student, teacher = pair("cwd_loss", student, teacher, ranks=(3, 4))
    check_choice("over", over, "positions", "channels")
    axis = 2 if over == "positions" else 1
    log_s, log_t = ((as_maps(x) / temperature).log_softmax(axis) for x in (student, teacher))
    divergence = (log_t.exp() * (log_t - log_s)).sum(axis)
    return reduce(temperature**2 * per_sample(divergence), reduction)
