"""Cutting: a spectral student becomes a plain, smaller network with the same outputs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.utils.parametrize as parametrize
from torch import Tensor, nn

from limbeck.errors import InputError
from limbeck.nn.spectral import LAYERS, gated_layers
from limbeck.students.flow import NORMS, Group, Signal, Slot
from limbeck.students.spectral import mask_nodes, spectral_groups, unmasked


def export_dense(model: nn.Module, alive: Mapping[str, Tensor] | None = None) -> nn.Module:
    """A plain network of the nodes that are alive; its outputs are the masked model's.

    What a dead node still sends, such as act(bias), goes into the bias of the layers that read it.

    Args:
        model: from `spectralize`, trained; it is left as it is.
        alive: by layer, as `alive_nodes` or `find_width` give it; None: what no mask silences.

    Raises:
        InputError: a layer would be left without nodes, or a dead node sends a constant into a
            convolution with zero padding, where no bias can stand for it.
    """
    model = copy.deepcopy(model)
    if alive is not None:
        mask_nodes(model, alive)
    kept, groups = unmasked(model), spectral_groups(model)
    modules: dict[str, Any] = dict(model.named_modules())
    shifts = [
        (slot, _shift(modules[slot.path], slot, signal, kept[group.name]))
        for group in groups
        for slot, signal in group.consumers
    ]
    for layer in gated_layers(model).values():
        _bake(layer)
    with torch.no_grad():
        for slot, shift in shifts:
            _add_bias(modules[slot.path], shift)
        for group in groups:
            cut_group(model, group, kept[group.name])
    return model


def _bake(layer: nn.Module) -> None:
    """Turn the parametrized weight, and bias where it is one, into plain parameters.

    `parametrize.remove_parametrizations` would take the weight from the class, which copies of a
    layer share.
    """
    values = {name: getattr(layer, name).detach().clone() for name in layer.parametrizations}  # type: ignore[union-attr]
    layer.__class__ = parametrize.type_before_parametrizations(layer)
    del layer.parametrizations
    for name, value in values.items():
        layer.register_parameter(name, nn.Parameter(value))


def _shift(reader: Any, slot: Slot, signal: Signal, kept: Tensor) -> Tensor:
    """What the dead nodes add to the outputs of a layer that reads them."""
    dead = ~kept
    if not dead.any():
        return torch.zeros(len(reader.weight))
    if not kept.any():
        raise InputError(f"no node of {signal.group.name!r} would be left: lower the threshold")
    sent = signal.constant.detach().expand(-1, slot.unit).cpu()[dead].flatten()
    if signal.border and bool(sent.abs().max() > 0):
        raise InputError(
            f"dead nodes of {signal.group.name!r} send constants into {slot.path!r}, which pads "
            f"with zeros, so that no bias can stand for them: spectralize with bias='gated' and an "
            f"activation that is 0 at 0"
        )
    weight = reader.weight.detach().cpu()[:, slot.index(dead)]
    return torch.einsum(
        "oc...,c->o", weight.flatten(2).sum(2) if weight.dim() > 2 else weight, sent
    )


def _add_bias(layer: Any, shift: Tensor) -> None:
    if not shift.any():
        return
    shift = shift.to(layer.weight)
    if layer.bias is None:
        layer.bias = nn.Parameter(shift)
    else:
        layer.bias.add_(shift)


def cut_group(model: nn.Module, group: Group, alive: Tensor) -> None:
    """Remove the other nodes of a group of plain layers; in place."""

    def keep(slot: Slot, values: Tensor, dim: int) -> Tensor:
        return values.index_select(dim, slot.index(alive).to(values.device))

    replace_nodes(model, group, keep, int(alive.sum()))


def replace_nodes(
    model: nn.Module, group: Group, change: Callable[[Slot, Tensor, int], Tensor], width: int
) -> None:
    """Give a group of plain layers other nodes; in place.

    Args:
        model: the network.
        group: of it.
        change: of a slot, its values, and the dimension of the nodes (0 for rows, 1 for columns).
        width: how many nodes it leaves.
    """
    modules: dict[str, Any] = dict(model.named_modules())
    for slot in [*group.producers, *group.followers]:
        layer = modules[slot.path]
        for name in ("weight", "bias", "running_mean", "running_var"):
            if getattr(layer, name, None) is not None:
                _set(layer, name, change(slot, getattr(layer, name), 0))
        _count_rows(layer)
    for slot, _ in group.consumers:
        layer = modules[slot.path]
        _set(layer, "weight", change(slot, layer.weight, 1))
        name = "in_features" if isinstance(layer, nn.Linear) else "in_channels"
        setattr(layer, name, layer.weight.shape[1])
    if group.heads:
        attention = modules[group.heads]
        setattr(attention, "heads" if hasattr(attention, "heads") else "num_heads", width)


def _count_rows(layer: Any) -> None:
    """Tell a layer how many outputs its weight has."""
    rows = len(layer.weight)
    if isinstance(layer, NORMS):
        layer.num_features = rows
    elif isinstance(layer, nn.Linear):
        layer.out_features = rows
    else:
        layer.out_channels = rows
        if layer.groups > 1:
            layer.in_channels = layer.groups = rows


def _set(layer: nn.Module, name: str, value: Tensor) -> None:
    before, value = getattr(layer, name), value.detach().clone()
    parameter = isinstance(before, nn.Parameter)
    setattr(layer, name, nn.Parameter(value, before.requires_grad) if parameter else value)


def merge_parallel(
    model: nn.Module, *, cosine: float = 0.99, importance: float = 0.02
) -> nn.Module:
    """A plain copy in which nodes of one direction are one node, and unimportant ones are gone.

    A group lasso cannot tell one node from two parallel halves. Where only ReLU stands between a
    layer and its one reader, nodes whose incoming weights (bias appended) have at least that
    cosine become one of unit length, with outgoing weights Σ ‖w_j‖ v_j; and those whose
    ‖w‖ ‖v‖ is below `importance` times the largest are dropped. Other layers stay as they are.

    Args:
        model: a plain model, or a spectral one, which is exported first.
        cosine: in (0, 1].
        importance: share of the largest, in [0, 1).
    """
    from limbeck.students.flow import node_groups

    if not 0 < cosine <= 1 or not 0 <= importance < 1:
        raise InputError(f"cosine {cosine} must lie in (0, 1], importance {importance} in [0, 1)")
    model = export_dense(model) if gated_layers(model) else copy.deepcopy(model)
    for group in node_groups(model):
        one_way = len(group.producers) == len(group.consumers) == 1 and not group.followers
        if one_way and not group.obstacle and group.consumers[0][1].straight:
            with torch.no_grad():
                _merge(model, group, cosine, importance)
    return model


def _merge(model: nn.Module, group: Group, cosine: float, importance: float) -> None:
    modules: dict[str, Any] = dict(model.named_modules())
    layer, slot = modules[group.producers[0].path], group.consumers[0][0]
    reader = modules[slot.path]
    if not isinstance(layer, LAYERS):
        return
    incoming = layer.weight.flatten(1)
    if layer.bias is not None:
        incoming = torch.cat([incoming, layer.bias[:, None]], 1)
    blocks = reader.weight.unflatten(1, (group.width, slot.unit))
    norms = incoming.norm(dim=1)
    weights = norms * blocks.transpose(0, 1).flatten(1).norm(dim=1)
    directions = incoming / norms.clamp(min=torch.finfo(norms.dtype).tiny)[:, None]
    leader = _leaders(directions, weights, cosine)
    shape = [1, -1] + [1] * (blocks.dim() - 2)
    scaled = blocks * norms.view(shape)
    outgoing = torch.zeros_like(blocks).index_add_(1, leader, scaled)
    size = outgoing.transpose(0, 1).flatten(1).norm(dim=1)
    alive = size > importance * size.max()
    reader.weight.copy_(outgoing.flatten(1, 2))
    layer.weight.copy_(directions[:, : layer.weight[0].numel()].view_as(layer.weight))
    if layer.bias is not None:
        layer.bias.copy_(directions[:, -1])
    cut_group(model, group, alive)


def _leaders(directions: Tensor, weights: Tensor, cosine: float) -> Tensor:
    """The node that each one joins: the first, by falling weight, that points the same way."""
    leader = torch.arange(len(weights))
    heads: list[int] = []
    for node in weights.argsort(descending=True, stable=True).tolist():
        near = [head for head in heads if float(directions[head] @ directions[node]) > cosine]
        leader[node] = near[0] if near else node
        if not near:
            heads.append(node)
    return leader.to(weights.device)
