"""Starts: a narrower student takes its first weights from a teacher of the same structure."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as tf
from torch import Tensor, nn

from limbeck.data.random import derive
from limbeck.errors import InputError
from limbeck.nn.forward import as_record
from limbeck.students.cut import replace_nodes
from limbeck.students.flow import NORMS, Group, Slot, node_groups

Strategy = Literal["auto", "copy", "copy-average", "cluster"]
STRATEGIES = ("copy", "copy-average", "cluster")
ROWS = 20_000
"""Positions that least squares and clustering look at, at most."""
RIDGE = 1e-4


@dataclass(frozen=True)
class Start:
    """A student with its first weights.

    Attributes:
        student: a copy of the one that was given, with new weights.
        strategy: how they were made.
        losses: mean squared difference from the teacher's held-out logits, by strategy; "none" is
            the student as it was given.
    """

    student: nn.Module
    strategy: str
    losses: dict[str, float]


def start_from(
    teacher: nn.Module,
    student: nn.Module,
    strategy: Strategy = "auto",
    *,
    x: Tensor,
    held_out: Tensor | None = None,
    seed: int = 0,
) -> Start:
    """First weights for a narrower student: hidden nodes copied, averaged or clustered.

    Layer by layer, n groups of the teacher's k nodes become n nodes: each has the mean of its
    group's incoming weights, weighted by importance (rms activation times length of the outgoing
    weights), and the layers that read them are refitted by least squares to what they gave in the
    teacher. "copy" takes the n most important nodes; "copy-average" the n − 1 most important and
    the mean of all others, the optimum of Şimşek et al. (NeurIPS 2023) for orthonormal teachers;
    "cluster" k-means of the activations, better for redundant layers. Heads are copied.

    Args:
        teacher: a trained network.
        student: of the same structure, its hidden layers narrower, or wider: then the student's
            own nodes are added with outgoing weights of zero.
        strategy: "auto" tries all and keeps the one of the smallest held-out loss.
        x: samples as the teacher takes them, [N, ...], a few hundred or more.
        held_out: samples to compare on; a fifth of `x` where not given.
        seed: of the clustering.

    Raises:
        InputError: an unknown strategy, or networks of different structure.
    """
    if strategy not in ("auto", *STRATEGIES):
        raise InputError(f"strategy is {strategy!r}: 'auto', 'copy', 'copy-average' or 'cluster'")
    if held_out is None:
        cut = max(1, len(x) // 5)
        x, held_out = x[cut:], x[:cut]
    if len(x) < 2:
        raise InputError(f"a start needs samples to fit on, 16 or more; {len(x)} are left")
    widths = _widths(teacher, student)
    teacher = copy.deepcopy(teacher).eval()
    with torch.no_grad(), _slow_attention():
        target = _logits(teacher, held_out)
        losses = {"none": _distance(student, held_out, target)}
        made: dict[str, nn.Module] = {}
        for name in STRATEGIES if strategy == "auto" else (strategy,):
            made[name] = _fill(student, _resized(teacher, widths, name, x, seed))
            losses[name] = _distance(made[name], held_out, target)
    best = min(made, key=lambda name: losses[name])
    return Start(made[best], best, losses)


@contextmanager
def _slow_attention() -> Iterator[None]:
    """Torch's fused encoder layer calls no sub-module, so that nothing could be observed."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def _logits(model: nn.Module, x: Tensor) -> Tensor:
    return torch.cat([as_record(model(part))["logits"] for part in torch.split(x, 512)])


def _distance(model: nn.Module, x: Tensor, target: Tensor) -> float:
    training = model.training
    logits = _logits(model.eval(), x)
    model.train(training)
    if logits.shape != target.shape:
        raise InputError(
            f"the student gives outputs of width {logits.shape[1]} and the teacher of width "
            f"{target.shape[1]}: a start needs the same"
        )
    return float(tf.mse_loss(logits, target))


def _hidden(model: nn.Module) -> list[Group]:
    return [group for group in node_groups(model) if not group.obstacle and group.consumers]


def _widths(teacher: nn.Module, student: nn.Module) -> list[int]:
    """The student's width of each group of nodes, in the teacher's order."""
    ours, theirs = _hidden(student), _hidden(teacher)
    if len(ours) != len(theirs) or any(
        len(a.producers) != len(b.producers) for a, b in zip(ours, theirs, strict=True)
    ):
        raise InputError(
            f"the teacher has {len(theirs)} groups of hidden nodes and the student {len(ours)}: a "
            f"start pairs networks of the same structure and other widths, such as "
            f"limbeck:convnet?widths=64,128 and limbeck:convnet?widths=8,16"
        )
    if not ours:
        raise InputError("the student has no hidden nodes that could be taken from the teacher")
    return [group.width for group in ours]


def _fill(student: nn.Module, narrowed: nn.Module) -> nn.Module:
    """A copy of the student with the parameters and statistics of a network of its shape."""
    student = copy.deepcopy(student)
    ours, theirs = student.state_dict(), narrowed.state_dict()
    shapes = [tuple(value.shape) for value in ours.values()]
    if [tuple(value.shape) for value in theirs.values()] != shapes:
        wrong = [
            name
            for (name, mine), other in zip(ours.items(), theirs.values(), strict=False)
            if mine.shape != other.shape
        ]
        raise InputError(
            f"teacher and student differ in more than their hidden widths "
            f"({', '.join(wrong[:3]) or 'they have other layers'}): a start cannot be taken over"
        )
    student.load_state_dict(dict(zip(ours, theirs.values(), strict=True)))
    return student


def _resized(
    teacher: nn.Module, widths: Sequence[int], strategy: str, x: Tensor, seed: int
) -> nn.Module:
    """The teacher, its groups of nodes brought to the given widths one after another."""
    model = copy.deepcopy(teacher)
    for number, width in enumerate(widths):
        group = _hidden(model)[number]
        if width > group.width:
            _split(model, group, width)
        elif width < group.width:
            _narrow(model, teacher, group, width, "copy" if group.heads else strategy, x, seed)
    return model


def _split(model: nn.Module, group: Group, width: int) -> None:
    """Share the outgoing weights of some nodes between two or more of them: the same function."""
    source = torch.arange(width) % group.width
    mixing = tf.one_hot(source, group.width).double()
    _mix(model, group, mixing, mixing / mixing.sum(0))


def _narrow(
    model: nn.Module,
    teacher: nn.Module,
    group: Group,
    width: int,
    strategy: str,
    x: Tensor,
    seed: int,
) -> None:
    modules: dict[str, Any] = dict(model.named_modules())
    readers = [slot for slot, _ in group.consumers]
    paths = [slot.path for slot in readers]
    inputs = _observe(model, paths, x, outputs=False)
    activity = _node_activity(inputs[paths[0]], readers[0], modules[paths[0]])
    outgoing = torch.stack([_outgoing(modules[slot.path], slot, group.width) for slot in readers])
    lengths = outgoing.square().sum(0).sqrt()
    importance = activity.square().mean(1).sqrt() * lengths
    mixing = _mixing(importance, activity * lengths[:, None], width, strategy, seed)
    # A mean of m nodes stands for their sum: outgoing weights add up until they are refitted.
    _mix(model, group, mixing, (mixing > 0).double())
    _renormalize(model, group, x)
    inputs = _observe(model, paths, x, outputs=False)
    wanted = _observe(teacher, paths, x, outputs=True)
    for path in paths:
        _refit(modules[path], inputs[path], wanted[path])


def _observe(
    model: nn.Module, paths: Sequence[str], x: Tensor, *, outputs: bool
) -> dict[str, Tensor]:
    """What goes into, or comes out of, the modules at `paths`."""
    seen: dict[str, list[Tensor]] = {path: [] for path in paths}

    def hook(path: str) -> Any:
        def keep(_: nn.Module, given: tuple[Tensor, ...], result: Tensor) -> None:
            seen[path].append(result if outputs else given[0])

        return keep

    handles = [model.get_submodule(path).register_forward_hook(hook(path)) for path in seen]
    try:
        _logits(model, x)
    finally:
        for handle in handles:
            handle.remove()
    return {path: torch.cat(parts) for path, parts in seen.items()}


def _node_activity(values: Tensor, slot: Slot, reader: nn.Module) -> Tensor:
    """What each node says at many positions, [k, positions]."""
    if not isinstance(reader, nn.Linear):
        values = values.movedim(1, -1)
    rows = values.flatten(0, -2)
    rows = rows[:: max(1, len(rows) // ROWS)]
    nodes = rows.view(len(rows), -1, slot.unit).transpose(0, 1).flatten(1)
    return nodes[:, :: max(1, nodes.shape[1] // ROWS)]


def _outgoing(reader: Any, slot: Slot, width: int) -> Tensor:
    """The length of each node's outgoing weights in one reader."""
    blocks: Tensor = reader.weight.unflatten(1, (width, slot.unit)).transpose(0, 1).flatten(1)
    lengths: Tensor = torch.linalg.vector_norm(blocks, dim=1)
    return lengths


def _mixing(importance: Tensor, activity: Tensor, width: int, strategy: str, seed: int) -> Tensor:
    """Weights of the k nodes in each of the n new ones, [n, k]; rows add up to one."""
    order = importance.argsort(descending=True, stable=True)
    if strategy == "copy":
        return tf.one_hot(order[:width], len(order)).to(importance)
    member = torch.empty_like(order)
    if strategy == "copy-average":
        member[order] = torch.arange(len(order)).clamp(max=width - 1)
    else:
        member = _clusters(activity, importance, width, seed)
    groups = tf.one_hot(member, width).T.to(importance)
    weights = groups * importance.clamp(min=1e-12 * float(importance.max().clamp(min=1e-30)))
    return weights / weights.sum(1, keepdim=True).clamp(min=1e-30)


def _clusters(activity: Tensor, importance: Tensor, width: int, seed: int) -> Tensor:
    """k-means of what the nodes say, around its mean; silent nodes stand aside."""
    from sklearn.cluster import KMeans

    points = (activity - activity.mean(1, keepdim=True)).double().numpy()
    says = (importance > 0).nonzero().flatten()
    if len(says) < width:
        says = importance.argsort(descending=True)[:width]
    member = torch.zeros(len(importance), dtype=torch.long)
    means = KMeans(width, n_init=5, random_state=derive(seed, "clusters") % 2**32)
    member[says] = torch.from_numpy(means.fit_predict(points[says.numpy()])).long()
    return member


def _mix(model: nn.Module, group: Group, incoming: Tensor, outgoing: Tensor) -> None:
    """Replace the k nodes by n mixtures of them; weights of both sides [n, k]."""

    def change(slot: Slot, values: Tensor, dim: int) -> Tensor:
        weights = (incoming if dim == 0 else outgoing).to(values)
        before, after = values.shape[:dim], values.shape[dim + 1 :]
        nodes = values.reshape(*before, slot.parts, group.width, slot.unit, *after)
        nodes = nodes.movedim(dim + 1, 0)
        mixed = torch.einsum("nk,k...->n...", weights, nodes)
        return mixed.movedim(0, dim + 1).flatten(dim, dim + 2)

    replace_nodes(model, group, change, len(incoming))


def _renormalize(model: nn.Module, group: Group, x: Tensor) -> None:
    """Batch normalizations of mixed nodes take their statistics from the samples."""
    for slot in group.followers:
        norm = model.get_submodule(slot.path)
        if not isinstance(norm, NORMS):
            continue
        momentum, norm.momentum = norm.momentum, None
        norm.reset_running_stats()
        norm.train()
        _logits(model, x)
        norm.eval()
        norm.momentum = momentum


def _refit(reader: Any, inputs: Tensor, wanted: Tensor) -> None:
    """Least squares of what a layer gave on what it gets now, for linear layers and Conv2d."""
    if isinstance(reader, nn.Linear):
        features, targets = inputs.flatten(0, -2), wanted.flatten(0, -2)
    elif isinstance(reader, nn.Conv2d) and reader.padding_mode == "zeros":
        if isinstance(reader.padding, str):
            return
        kernel = reader.kernel_size
        patches = tf.unfold(inputs, kernel, reader.dilation, reader.padding, reader.stride)
        features, targets = patches.transpose(1, 2).flatten(0, 1), wanted.flatten(2)
        targets = targets.transpose(1, 2).flatten(0, 1)
    else:
        return
    step = max(1, len(features) // ROWS)
    solution = _least_squares(features[::step], targets[::step], reader.bias is not None)
    count = features.shape[1]
    reader.weight.copy_(solution[:count].T.reshape(reader.weight.shape))
    if reader.bias is not None:
        reader.bias.copy_(solution[count])


def _least_squares(features: Tensor, targets: Tensor, bias: bool) -> Tensor:
    """Ridge regression, [features (+ 1), targets]."""
    design = features.double()
    if bias:
        design = torch.cat([design, torch.ones(len(design), 1, dtype=torch.float64)], 1)
    gram = design.T @ design
    ridge = RIDGE * float(gram.diagonal().mean().clamp(min=1e-12))
    gram.diagonal().add_(ridge)
    solution: Tensor = torch.linalg.solve(gram, design.T @ targets.double())
    return solution.to(targets)
