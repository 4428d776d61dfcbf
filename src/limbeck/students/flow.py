"""Where the nodes of a network go: which layers make, carry and read them, from its graph."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as tf
from torch import Tensor, fx, nn

from limbeck.errors import InputError
from limbeck.nn.spectral import LAYERS

CONVOLUTIONS = LAYERS[1:]
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
# What keeps f(c·x) = c·f(x) for c > 0, so that parallel nodes can be merged.
STRAIGHT = (nn.ReLU, nn.LeakyReLU, nn.Identity, nn.modules.dropout._DropoutNd)
ELEMENTWISE = (
    *STRAIGHT,
    *(nn.GELU, nn.SiLU, nn.Mish, nn.ELU, nn.SELU, nn.CELU, nn.Tanh, nn.Sigmoid, nn.Softplus),
    *(nn.ReLU6, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Softsign, nn.LogSigmoid),
)
MAX_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d)
MEAN_POOLS = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
PADDED_POOLS = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
STRAIGHT_FUNCTIONS: set[Any] = {torch.relu, tf.relu, "relu", tf.leaky_relu, tf.dropout}
FUNCTIONS: set[Any] = STRAIGHT_FUNCTIONS | {
    *(torch.tanh, torch.sigmoid, tf.tanh, tf.sigmoid, tf.gelu, tf.silu, tf.elu, tf.softplus),
    *("tanh", "sigmoid", torch.erf, torch.cos, torch.sin),
}
SHAPES: set[Any] = {torch.flatten, "flatten", "contiguous", tf.adaptive_avg_pool2d}
POOLS: set[Any] = {tf.max_pool2d, tf.adaptive_max_pool2d}


@dataclass(frozen=True)
class Slot:
    """Where the nodes of a group stand in a layer: `parts` runs of `unit` rows or columns each."""

    path: str
    unit: int = 1
    parts: int = 1

    def index(self, alive: Tensor) -> Tensor:
        """Rows or columns of the nodes that are alive (boolean, one a node)."""
        places = torch.arange(self.parts * len(alive) * self.unit)
        return places.view(self.parts, len(alive), self.unit)[:, alive.cpu()].flatten()

    def spread(self, alive: Tensor) -> Tensor:
        """`alive` of each row."""
        return alive[None, :, None].expand(self.parts, -1, self.unit).flatten()


@dataclass(eq=False)
class Group:
    """Nodes that can only be removed together.

    Attributes:
        width: how many nodes.
        producers: layers whose rows they are; several where branches are added up.
        gates: layers whose eigenvalues kill them: the producer, or a batch normalization after it.
        followers: batch normalizations and depthwise convolutions on the way.
        consumers: layers that read them, with what a dead node sends there.
        obstacle: why they cannot be removed; empty where they can.
        heads: the attention whose heads the nodes are.
    """

    width: int
    producers: list[Slot] = field(default_factory=list)
    gates: list[Slot] = field(default_factory=list)
    followers: list[Slot] = field(default_factory=list)
    consumers: list[tuple[Slot, Signal]] = field(default_factory=list)
    obstacle: str = ""
    heads: str = ""
    merged: Group | None = None

    @property
    def name(self) -> str:
        """The path of its first producer."""
        return self.producers[0].path if self.producers else ""

    def root(self) -> Group:
        """The group that this one became part of, or itself."""
        return self if self.merged is None else self.merged.root()


@dataclass(frozen=True)
class Signal:
    """A value on its way.

    Attributes:
        source: the group of its nodes; see `Group.root`.
        constant: what a node sends whose weights are all zero, (width, 1) or (width, unit).
        gate: the layer whose eigenvalues kill exactly this value, None once it has branched.
        straight: whether all that happened to it is positively homogeneous.
        border: whether zero padding has mixed into it, so that a constant is none at the border.
    """

    source: Group
    constant: Tensor
    gate: Slot | None = None
    straight: bool = True
    border: bool = False

    @property
    def group(self) -> Group:
        """Its nodes."""
        return self.source.root()


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, path: str) -> bool:
        return attention_slots(module, path) is not None or super().is_leaf_module(module, path)


def attention_slots(module: nn.Module, path: str) -> tuple[list[Slot], Slot, int] | None:
    """Query, key and value rows by head, the columns that read them, and the number of heads.

    Knows modules with a count `heads` or `num_heads`, one linear layer of three times its output
    projection's inputs, and that projection.
    """
    heads = getattr(module, "heads", getattr(module, "num_heads", None))
    lines = {name: part for name, part in module.named_children() if isinstance(part, nn.Linear)}
    if not isinstance(heads, int) or isinstance(module, nn.MultiheadAttention) or len(lines) != 2:
        return None
    (inward, first), (outward, last) = lines.items()
    if first.out_features != 3 * last.in_features or last.in_features % heads:
        return None
    unit = last.in_features // heads
    return [Slot(f"{path}.{inward}", unit, 3)], Slot(f"{path}.{outward}", unit), heads


def node_groups(model: nn.Module) -> list[Group]:
    """Every group of nodes in `model`, those with an obstacle included.

    Raises:
        InputError: the model's code depends on its inputs, so that its graph cannot be read.
    """
    try:
        graph = _Tracer().trace(model)
    except Exception as error:  # whatever the model's own code does with a proxy
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"the graph of {type(model).__name__} cannot be read by torch.fx ({reason}): only a "
            f"model whose code does not branch on its inputs can be cut to a smaller width"
        ) from None
    with torch.no_grad():
        walk = _Walk(model)
        for node in graph.nodes:
            walk.visit(node)
    return [group for group in walk.groups if group.merged is None]


class _Walk:
    """Follows the nodes through a graph, in the order of the calls."""

    def __init__(self, model: nn.Module) -> None:
        self.modules = dict(model.named_modules(remove_duplicate=False))
        self.groups: list[Group] = []
        self.signals: dict[fx.Node, Signal] = {}
        self.seen: dict[int, str] = {}

    def visit(self, node: fx.Node) -> None:
        """Carry the signals of `node`'s inputs to its output."""
        inputs = [
            replace(self.signals[one], gate=self.signals[one].gate if len(one.users) == 1 else None)
            for one in node.all_input_nodes
            if one in self.signals
        ]
        result: Signal | None = None
        if node.op == "output":
            self.block(inputs, "it is the output of the model")
        elif node.op == "call_module":
            result = self.module(str(node.target), inputs, node)
        elif node.op in ("call_function", "call_method"):
            result = self.function(node, inputs)
        if result is not None:
            self.signals[node] = result

    def block(self, inputs: list[Signal], reason: str) -> None:
        """Nothing can be cut from these."""
        for signal in inputs:
            signal.group.obstacle = signal.group.obstacle or reason

    def module(self, path: str, inputs: list[Signal], node: fx.Node) -> Signal | None:
        """The signal after the module at `path`."""
        module = self.modules[path]
        signal = inputs[0] if len(inputs) == 1 else None
        if isinstance(module, LAYERS):
            return self.layer(path, module, signal)
        if isinstance(module, nn.TransformerEncoderLayer):
            self.feed_forward(path, module)
        elif (slots := attention_slots(module, path)) is not None:
            self.attention(path, *slots)
        if signal is None:
            self.block(inputs, f"{path} ({type(module).__name__}) mixes them")
            return None
        if isinstance(module, NORMS):
            return self.norm(path, module, signal)
        if isinstance(module, ELEMENTWISE):
            return _apply(signal, module, isinstance(module, STRAIGHT))
        if isinstance(module, (*MAX_POOLS, *MEAN_POOLS)):
            return signal
        if isinstance(module, PADDED_POOLS):
            return replace(signal, border=signal.border or any(_tuple(module.padding)))
        if isinstance(module, nn.Flatten) and module.start_dim == 1:
            return signal
        self.block([signal], f"{path} ({type(module).__name__}) mixes them")
        return None

    def layer(self, path: str, module: Any, signal: Signal | None) -> Signal | None:
        """After a linear layer or convolution: its own nodes, or those that it carries."""
        groups = getattr(module, "groups", 1)
        width = len(module.weight)
        if groups > 1 and signal is not None and groups == width == signal.group.width:
            return self.depthwise(path, module, signal)
        made = Group(width, [Slot(path)], [Slot(path)])
        tied = self.seen.setdefault(id(_stored(module)), path)
        if groups > 1:
            made.obstacle = f"{path} is a grouped convolution"
        if tied != path or any(one.name == path for one in self.groups):
            made.obstacle = f"{path} is used twice, or shares its weight with {tied}"
            for other in self.groups:
                if other.name == tied:
                    other.obstacle = made.obstacle
        if signal is not None:
            self.read(path, module, signal, made.obstacle)
        self.groups.append(made)
        return Signal(made, _bias(module)[:, None], Slot(path))

    def read(self, path: str, module: Any, signal: Signal, obstacle: str) -> None:
        """`module` reads the nodes of `signal`."""
        columns = module.weight.shape[1]
        unit, rest = divmod(int(columns), signal.group.width)
        if obstacle or rest:
            self.block([signal], obstacle or f"{path} reads them in another order")
            return
        padded = isinstance(module, CONVOLUTIONS) and any(_numbers(module.padding))
        entered = replace(signal, border=signal.border or padded)
        signal.group.consumers.append((Slot(path, unit), entered))

    def depthwise(self, path: str, module: Any, signal: Signal) -> Signal:
        """A convolution of each channel on its own carries its nodes on."""
        signal.group.followers.append(Slot(path))
        kernel = module.weight.flatten(1).sum(1)
        constant = signal.constant * kernel[:, None] + _bias(module)[:, None]
        padded = any(_numbers(module.padding)) and bool(signal.constant.any())
        return replace(signal, constant=constant, straight=False, border=signal.border or padded)

    def norm(self, path: str, module: Any, signal: Signal) -> Signal | None:
        """Batch normalization: it takes the gate over, for it would undo any scale before it."""
        group = signal.group
        group.followers.append(Slot(path))
        if module.running_mean is None or not module.affine:
            self.block([signal], f"{path} normalizes without parameters or statistics of its own")
            return None
        scale = module.weight / (module.running_var + module.eps).sqrt()
        shift = module.bias - scale * module.running_mean
        gate = signal.gate
        if gate is not None:
            group.gates[group.gates.index(gate)] = Slot(path)
            gate = Slot(path)
        constant = signal.constant * scale[:, None] + shift[:, None]
        return replace(signal, constant=constant, gate=gate, straight=False)

    def attention(self, path: str, made: list[Slot], read: Slot, heads: int) -> None:
        """The heads of an attention: a dead one sends its values' bias, weighted by 1 in all."""
        module = self.modules[made[0].path]
        bias = _bias(module).view(3, heads, read.unit)[2]
        group = Group(heads, made, list(made), heads=path)
        group.consumers.append((read, Signal(group, bias, straight=False)))
        self.groups.append(group)

    def feed_forward(self, path: str, module: nn.TransformerEncoderLayer) -> None:
        """The hidden units of a `TransformerEncoderLayer`."""
        first = Slot(f"{path}.linear1")
        group = Group(module.linear1.out_features, [first], [first])
        constant = module.activation(_bias(module.linear1))[:, None]
        group.consumers.append((Slot(f"{path}.linear2"), Signal(group, constant, straight=False)))
        self.groups.append(group)

    def function(self, node: fx.Node, inputs: list[Signal]) -> Signal | None:
        """The signal after a function or a method of a tensor."""
        target = node.target
        if not inputs:
            return None
        if target in (operator.add, operator.iadd, torch.add, "add", "add_"):
            return self.add(node, inputs)
        if len(inputs) == 1:
            if target in FUNCTIONS:
                return _apply(inputs[0], _call(node), target in STRAIGHT_FUNCTIONS)
            if target in SHAPES | POOLS or _keeps_nodes(node):
                return inputs[0]
            if target in ("size", "dim") or target is getattr:
                return None
        name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
        self.block(inputs, f"{name}() mixes them")
        return None

    def add(self, node: fx.Node, inputs: list[Signal]) -> Signal | None:
        """A sum ties the nodes of its two sides."""
        if len(inputs) != 2 or inputs[0].group.width != inputs[1].group.width:
            self.block(inputs, "they are added to something that is no layer's output")
            return None
        one, other = inputs
        kept, lost = one.group, other.group
        if kept is not lost:
            for name in ("producers", "gates", "followers", "consumers"):
                getattr(kept, name).extend(getattr(lost, name))
            kept.obstacle = kept.obstacle or lost.obstacle
            lost.merged = kept
        return Signal(kept, one.constant + other.constant, None, False, one.border or other.border)


def _apply(signal: Signal, function: Callable[[Tensor], Tensor], straight: bool) -> Signal:
    return replace(
        signal, constant=function(signal.constant), straight=signal.straight and straight
    )


def _call(node: fx.Node) -> Callable[[Tensor], Tensor]:
    """The function of a graph's node on another tensor; dropout does nothing."""
    if node.target is tf.dropout:
        return lambda value: value
    rest = node.args[1:]
    if isinstance(node.target, str):
        return lambda value: getattr(value, str(node.target))(*rest, **node.kwargs)
    return lambda value: node.target(value, *rest, **node.kwargs)  # type: ignore[operator]


def _keeps_nodes(node: fx.Node) -> bool:
    """Means over pixels, and views that flatten all but the batch."""
    rest = node.args[1:]
    if node.target in ("mean", torch.mean):
        dims = rest[0] if rest else node.kwargs.get("dim")
        return set(_numbers(dims)) in ({2}, {2, 3}, {-1, -2}, {2, 3, 4})
    return node.target in ("view", "reshape") and len(rest) == 2 and bool(rest[1] == -1)


def _stored(module: Any) -> Any:
    """The parameter behind a weight, the same object where layers share it."""
    if hasattr(module, "parametrizations"):
        return next(module.parametrizations.parameters())
    return module.weight


def _bias(module: Any) -> Tensor:
    bias = module.bias
    zeros: Tensor = module.weight.detach().new_zeros(len(module.weight))
    return zeros if bias is None else bias.detach()


def _tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def _numbers(value: Any) -> tuple[int, ...]:
    """Padding or dimensions as numbers; "same" counts as some padding, "valid" as none."""
    if isinstance(value, str):
        return (int(value == "same"),)
    return tuple(one for one in _tuple(value) if isinstance(one, int))
