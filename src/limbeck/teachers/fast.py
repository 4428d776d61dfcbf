"""The same teacher, faster: frozen batch norms folded, channels last, rows that fit the cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_CACHE, _LEAST = 1 << 20, 16
"""Bytes of the largest activation of a chunk, what stays near a core; and its fewest samples."""

_SAFE = 1e-4
"""Largest change of the outputs, over their size, that folding may cause."""

_CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class Swap:
    """A module that another one stands in for."""

    parent: nn.Module
    name: str
    original: nn.Module
    stand_in: nn.Module

    def do(self) -> None:
        """Put the stand-in in place."""
        setattr(self.parent, self.name, self.stand_in)

    def undo(self) -> None:
        """Put the original back."""
        setattr(self.parent, self.name, self.original)


def fold(model: nn.Module, x: Tensor, *, spare: Sequence[str] = ()) -> list[Swap]:
    """Fold every frozen batch norm into the convolution that feeds it alone.

    The model keeps its own code and its module paths: the convolution is replaced by the fused one
    and the batch norm by an identity.

    Args:
        model: in evaluation mode; changed in place.
        x: a few samples as the model wants them, to see that its outputs stay.
        spare: paths of convolutions that must keep their outputs, because they are tapped.

    Returns:
        What was swapped; none where the model cannot be traced or its outputs would change.
    """
    with torch.inference_mode():
        before = _outputs(model(x))
    swaps = [
        swap
        for conv, norm in _pairs(model)
        if conv not in spare
        for swap in _swap(model, conv, norm)
    ]
    for swap in swaps:
        swap.do()
    with torch.inference_mode():
        after = _outputs(model(x))
    if before is None or after is None or (after - before).abs().max() > _SAFE * _size(before):
        unfold(swaps)
        return []
    return swaps


def unfold(swaps: Sequence[Swap]) -> None:
    """Undo what `fold` did."""
    for swap in reversed(swaps):
        swap.undo()


def _outputs(said: object) -> Tensor | None:
    return said if isinstance(said, Tensor) else None


def _size(values: Tensor) -> Tensor:
    return values.abs().max().clamp_min(1e-6)


def _pairs(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Paths of convolutions and the batch norms that alone read them, each called once."""
    try:
        graph = fx.symbolic_trace(model).graph
    except Exception:
        return  # control flow that depends on the input: nothing is folded
    modules = dict(model.named_modules())
    calls = [str(node.target) for node in graph.nodes if node.op == "call_module"]
    for node in graph.nodes:
        if node.op != "call_module" or not isinstance(modules[node.target], _NORM):
            continue
        before = node.args[0]
        fits = before.op == "call_module" and isinstance(modules[before.target], _CONV)
        once = calls.count(node.target) == 1 and fits and calls.count(before.target) == 1
        if once and len(before.users) == 1 and modules[node.target].track_running_stats:
            yield str(before.target), str(node.target)


def _swap(model: nn.Module, conv: str, norm: str) -> list[Swap]:
    ours, theirs = model.get_submodule(conv), model.get_submodule(norm)
    fused = fuse_conv_bn_eval(ours, theirs)  # type: ignore[type-var, arg-type]
    stand_ins = ((conv, ours, fused), (norm, theirs, nn.Identity()))
    return [
        Swap(model.get_submodule(path.rpartition(".")[0]), path.rpartition(".")[2], old, new)
        for path, old, new in stand_ins
    ]


def chunk_rows(model: nn.Module, x: Tensor) -> int:
    """How many samples keep the largest activation of a forward pass near the core.

    A function of the model and of the shape of `x` alone.

    Args:
        model: run once on `x`.
        x: a few samples as the model wants them.
    """
    largest = 1

    def watch(module: nn.Module, args: object, output: object) -> None:
        nonlocal largest
        if isinstance(output, Tensor):
            largest = max(largest, output.numel() * output.element_size() // len(x))

    handles = [module.register_forward_hook(watch) for module in model.modules()]
    with torch.inference_mode():
        model(x)
    for handle in handles:
        handle.remove()
    return max(_LEAST, _CACHE // largest)
