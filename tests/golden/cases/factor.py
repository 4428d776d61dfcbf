"""Factor transfer: its two networks, losses, and a trace of stage 1, from the official modules."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

import limbeck.functional as F
from cases import Arrays, Close
from limbeck.nn.factor import Paraphraser, Translator, factor_channels


def close(name: str, ours: object, stored: np.ndarray, tolerance: float) -> Close:
    return Close(name, ours, stored, tolerance * (1 + np.abs(stored)))


def tensor(arrays: Arrays, name: str) -> Tensor:
    return torch.from_numpy(np.array(arrays[name], dtype=np.float64)).requires_grad_()


def parameters(network: nn.Module, prefix: str) -> dict[str, nn.Parameter]:
    """The parameters by their names in the files: layer i is module 2 i of a half."""
    halves = {"encoder": "conv", "decoder": "deconv", "layers": "conv"}
    named = {}
    for path, parameter in network.named_parameters():
        half, place, kind = path.split(".")
        named[f"{prefix}{halves[half]}{int(place) // 2}_{kind}"] = parameter
    return named


def load(network: nn.Module, arrays: Arrays, prefix: str) -> dict[str, nn.Parameter]:
    named = parameters(network.double(), prefix)
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(torch.from_numpy(arrays[name]))
    return named


def gradients(
    loss: Tensor, wanted: dict[str, Tensor], arrays: Arrays, prefix: str
) -> Iterator[Close]:
    found = torch.autograd.grad(loss, list(wanted.values()), retain_graph=True)
    for name, gradient in zip(wanted, found, strict=True):
        yield close(f"{prefix}{name}", gradient, arrays[f"{prefix}{name}"], 1e-9)


def modules(arrays: Arrays) -> Iterator[Close]:
    for case in sorted({name.split("_")[0] for name in arrays if re.match(r"c\d+_", name)}):
        stored = {n.removeprefix(f"{case}_"): v for n, v in arrays.items() if n.startswith(case)}
        yield from module_case(stored)


def module_case(arrays: Arrays) -> Iterator[Close]:
    x_t, x_s, logits = (tensor(arrays, name) for name in ("x_t", "x_s", "logits_s"))
    rate = float(arrays["k"])
    paraphraser = Paraphraser(x_t.shape[1], rate)
    translator = Translator(x_s.shape[1], factor_channels(x_t.shape[1], rate))
    ours = load(paraphraser, arrays, "par_")
    theirs = load(translator, arrays, "tra_")
    rec, z_t, z_s = paraphraser(x_t), paraphraser.encode(x_t), translator(x_s)
    p1 = F.factor_loss(z_s, z_t)
    total = nn.functional.cross_entropy(logits, torch.from_numpy(arrays["y"]))
    total = total + float(arrays["beta"]) * p1
    l1 = (rec - x_t.detach()).abs().mean()
    found = {
        "m": z_t.shape[1],
        "rec": rec,
        "z_t": z_t,
        "z_s": z_s,
        "loss_rec_l1": l1,
        "loss_rec_l2": (rec - x_t).square().mean(),
        "loss_ft_p1": p1,
        "loss_ft_p2_batchmean": F.factor_loss(z_s, z_t, p=2, per="sample"),
        "loss_ft_p1_sum_batchmean": F.factor_loss(z_s, z_t, per="sample"),
        "loss_total": total,
    }
    for name, value in found.items():
        yield close(name, value, arrays[name], 1e-10)
    yield from gradients(l1, dict(ours), arrays, "grad_rec_l1_")
    wanted = {"x_s": x_s, "logits_s": logits, **theirs}
    yield from gradients(total, wanted, arrays, "grad_total_")


def stage1(arrays: Arrays) -> Iterator[Close]:
    """Stochastic gradient descent on the mean absolute error of restored features."""
    batches = torch.from_numpy(arrays["x"])
    factor = arrays["init_conv1_weight"].shape[0]
    paraphraser = Paraphraser(batches.shape[2], factor / batches.shape[2])
    named = load(paraphraser, arrays, "init_")
    options = {name: float(arrays[name]) for name in ("lr", "momentum", "weight_decay")}
    optimizer = torch.optim.SGD(paraphraser.parameters(), **options)
    losses = []
    for batch in batches:
        loss = (paraphraser(batch) - batch).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    yield close("losses", torch.stack(losses), arrays["losses"], 1e-9)
    yield close("factor_final", paraphraser.encode(batches[0]), arrays["factor_final"], 1e-9)
    for name, parameter in named.items():
        final = name.replace("init_", "final_")
        yield close(final, parameter, arrays[final], 1e-9)


def sizes(arrays: Arrays) -> Iterator[Close]:
    rows = list(zip(arrays["C"].tolist(), arrays["k"].tolist(), strict=True))
    yield Close("m", [factor_channels(c, k) for c, k in rows], arrays["m"])
    counts = [sum(p.numel() for p in Paraphraser(c, k).parameters()) for c, k in rows]
    yield Close("d_params", counts, arrays["d_params"])


FAMILIES = {r"ft_modules\w*": modules, r"ft_stage1_trace\w*": stage1, r"ft_sizes\w*": sizes}
