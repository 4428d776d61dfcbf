"""Each loss, forward and backward, against the plain KL written by hand; fused memory against not.

``python benchmarks/losses.py --json`` prints one flat object: `dkd.over_kl` is the time of DKD over
that of the KL, both medians of interleaved repetitions in this one run; the memory of the fused
JSD is measured in processes of their own.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as tf
from torch import Tensor

import limbeck.functional as F

BATCH, CLASSES, VOCABULARY = 256, 100, 32_000
TOKENS, HIDDEN = 2048, 256

CLASSIFIER = {
    "kd": lambda s, t, y: F.kd_loss(s, t),
    "standardized_kd": lambda s, t, y: F.kd_loss(s, t, standardize=True),
    "dkd": F.dkd_loss,
    "nkd": F.nkd_loss,
    "wsld": F.wsld_loss,
    "dist": lambda s, t, y: F.dist_loss(s, t),
    "mlkd": lambda s, t, y: F.mlkd_loss(s, t),
    "wttm": lambda s, t, y: F.wttm_loss(s, t),
    "ofa": F.ofa_loss,
    "pskd": F.pskd_loss,
    "tfkd_reg": lambda s, t, y: F.tfkd_reg_loss(s, y),
    "bce_kd": lambda s, t, y: F.bce_kd_loss(s, t),
    "logit_mse": lambda s, t, y: F.logit_mse_loss(s, t),
}
SEQUENCE = {
    name: getattr(F, f"{name}_loss")
    for name in ("fkl", "rkl", "symkl", "jsd", "gkd_jsd", "skl", "srkl", "tvd", "akl")
}


def plain_kl(student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
    """What one writes by hand, at temperature 4."""
    p = tf.softmax(teacher / 4, dim=1)
    return tf.kl_div(tf.log_softmax(student / 4, dim=1), p, reduction="batchmean") * 16


def seconds(loss: Callable[..., Tensor], *inputs: Tensor) -> float:
    """One forward and backward pass."""
    inputs[0].grad = None
    start = time.perf_counter()
    loss(*inputs).backward()
    return time.perf_counter() - start


def ratios(
    losses: dict[str, Callable[..., Tensor]], shape: tuple[int, int], repeats: int
) -> dict[str, float]:
    """Median time of each loss over the plain KL's, repetitions interleaved."""
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(shape, generator=generator).requires_grad_()
    teacher = torch.randn(shape, generator=generator)
    target = torch.randint(shape[1], shape[:1], generator=generator)
    contestants = {"plain": plain_kl, **losses}
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for repeat in range(repeats + 3):
        for name, loss in contestants.items():
            taken = seconds(loss, student, teacher, target)
            if repeat >= 3:  # the first ones warm up
                times[name].append(taken)
    floor = statistics.median(times.pop("plain"))
    return {f"{name}.over_kl": statistics.median(t) / floor for name, t in times.items()}


def jsd(fused: bool) -> None:
    """Forward and backward of the JSD of two language model heads, fused or with all logits."""
    torch.manual_seed(0)
    student = torch.randn(TOKENS, HIDDEN, requires_grad=True)
    teacher = torch.randn(TOKENS, HIDDEN)
    weight = torch.randn(VOCABULARY, HIDDEN).div_(16).requires_grad_()
    teacher_weight = torch.randn(VOCABULARY, HIDDEN).div_(16)
    if fused:
        loss = F.fused_linear_jsd_loss(student, weight, teacher, teacher_weight)
    else:
        loss = F.gkd_jsd_loss(student @ weight.T, teacher @ teacher_weight.T)
    loss.backward()


def peak_mebibytes(what: str) -> float:
    """Peak resident memory of a process that does `what` and of nothing else."""
    command = [sys.executable, __file__, "--worker", what]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def worker(what: str) -> None:
    """Does `what` and prints this process' peak memory in MiB."""
    if what != "idle":
        jsd(fused=what == "fused")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def fused_memory() -> dict[str, float]:
    """Peak memory above that of a process which only imports, in MiB, and the ratio."""
    idle, fused, unfused = (peak_mebibytes(what) for what in ("idle", "fused", "unfused"))
    return {
        "fused_jsd.mebibytes": fused - idle,
        "unfused_jsd.mebibytes": unfused - idle,
        "fused_jsd.over_unfused": (fused - idle) / (unfused - idle),
    }


def main() -> None:
    """Measures, and prints a table or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one flat JSON object")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--worker", choices=("idle", "fused", "unfused"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.worker:
        worker(options.worker)
        return
    figures = ratios(CLASSIFIER, (BATCH, CLASSES), options.repeats)
    figures |= ratios(SEQUENCE, (16, VOCABULARY), options.repeats)
    figures |= fused_memory()
    rounded = {name: round(value, 3) for name, value in figures.items()}
    if options.json:
        print(json.dumps(rounded))
    else:
        print("\n".join(f"{name:28} {value:10.3f}" for name, value in rounded.items()))


if __name__ == "__main__":
    main()
