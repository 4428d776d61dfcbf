"""Batch ensembles: a network becomes M members that share its weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Literal, cast

from torch import Tensor, nn

from limbeck.data.random import generator
from limbeck.errors import InputError
from limbeck.functional.diversity import log_mean_probability
from limbeck.nn.batch_ensemble import MemberLayer, MemberNorm
from limbeck.nn.forward import as_record

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
READERS = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
"""Modules that read the weights of their layers themselves, past the members' factors."""


class BatchEnsemble(nn.Module):
    """A network of M members; its outputs are the logits of their mean probabilities.

    In training all members see all samples, as one batch of M · B rows, all samples of the first
    member first. Batch normalization is shared: statistics over all those rows, one affine map.

    Args:
        network: with a `MemberLayer` in place of every linear layer and convolution.
        members: M.
        mergeable: whether the members started as one, so that their mean is a network too.
    """

    def __init__(self, network: nn.Module, members: int, *, mergeable: bool) -> None:
        super().__init__()
        self.network = network
        self.mergeable = mergeable
        self._members = members

    def __len__(self) -> int:
        return self._members

    def members(self, x: Tensor) -> Tensor:
        """Logits of every member for samples `x` (B, ...): (M, B, classes)."""
        rows = x.repeat(len(self), *[1] * (x.dim() - 1))
        return self.grouped(as_record(self.network(rows))["logits"])

    def grouped(self, rows: Tensor) -> Tensor:
        """Outputs of `network` (M · B, ...) by member: (M, B, ...)."""
        return rows.view(len(self), -1, *rows.shape[1:])

    def forward(self, x: Tensor) -> Tensor:
        """log of the members' mean probabilities (B, classes)."""
        return log_mean_probability(self.members(x))

    def member(self, number: int) -> nn.Module:
        """One member as a plain network of its own."""
        if not 0 <= number < len(self):
            raise InputError(f"there is no member {number} among {len(self)}, counted from 0")
        return _replaced(self.network, lambda layer: layer.member(number))

    def merged(self) -> nn.Module:
        """The network of the members' mean factors: one forward pass of one network.

        Raises:
            InputError: the members did not start as one, so their mean is none of them.
        """
        if not self.mergeable:
            raise InputError(
                "members that start apart cannot be averaged: build the student with merge=True"
            )
        return _replaced(self.network, lambda layer: cast(MemberLayer, layer).merged())

    def pull(self) -> Tensor:
        """½ Σ (1 − factor)², the mean over the members: keeps them mergeable."""
        layers = [part for part in self.network.modules() if isinstance(part, MemberLayer)]
        squares = [(1 - factor).square().sum() for p in layers for factor in (p.alpha, p.gamma)]
        return sum(squares[1:], squares[0]) / (2 * len(self))


def batch_ensemble(
    model: nn.Module,
    members: int = 4,
    *,
    init_std: float = 0.5,
    norm: Literal["shared", "per_member"] = "shared",
    merge: bool = False,
    seed: int = 0,
) -> BatchEnsemble:
    """A copy of `model` as M members that share the weights of its layers (BatchEnsemble).

    Every linear layer and convolution gets factors of each member for its inputs and outputs,
    drawn from N(1, init_std²), and biases of each member, which start at 0. Everything else, such
    as normalization, pooling and embeddings, is shared.

    Args:
        model: any network of such layers.
        members: M, at least 2.
        init_std: how far the members start apart. With 0 all of them start as `model`.
        norm: `per_member` gives each member its own batch normalization.
        merge: start all factors at 1, so that `merged()` can average the members in the end.
        seed: of the factors.

    Returns:
        A student whose outputs (B, classes) are log-probabilities; `members(x)` gives the logits
        of each member.

    Raises:
        InputError: fewer than two members, or layers that cannot be shared in this way.
    """
    if members < 2:
        raise InputError(f"a batch ensemble has two members or more, not {members}")
    if norm not in ("shared", "per_member"):
        raise InputError(f"norm is {norm!r}: it must be 'shared' or 'per_member'")
    _check(model)
    draws = generator(seed, "batch ensemble")
    std = 0.0 if merge else init_std

    def replace(layer: nn.Module) -> nn.Module:
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            return MemberNorm(layer, members)
        return MemberLayer(cast(nn.Linear, layer), members, std, draws)

    def chosen(layer: nn.Module) -> bool:
        batch_norm = isinstance(layer, nn.modules.batchnorm._BatchNorm)
        return type(layer) in LAYERS or (batch_norm and norm == "per_member")

    network = _swap(copy.deepcopy(model), chosen, replace)
    return BatchEnsemble(network, members, mergeable=std == 0)


def _check(model: nn.Module) -> None:
    """Refuses a model without such layers, tied weights, and what would ignore the factors."""
    if not any(type(layer) in LAYERS for layer in model.modules()):
        raise InputError(
            f"{type(model).__name__} has neither a linear layer nor a convolution, which the "
            f"members of a batch ensemble could share"
        )
    seen: dict[int, str] = {}
    for path, layer in model.named_modules(remove_duplicate=False):
        if isinstance(layer, READERS):
            raise InputError(
                f"{path or type(layer).__name__!r} ({type(layer).__name__}) reads the weights of "
                f"its layers itself, so that members could not differ there"
            )
        if type(layer) not in LAYERS:
            continue
        other = seen.setdefault(id(layer.weight), path)
        if other != path:
            raise InputError(
                f"{other!r} and {path!r} share one weight, which a batch ensemble cannot scale for "
                f"each of them: untie them"
            )
        if getattr(layer, "padding_mode", "zeros") != "zeros":
            raise InputError(f"{path!r} pads with {layer.padding_mode!r}: only zeros are known")


def _replaced(
    network: nn.Module, plain: Callable[[MemberLayer | MemberNorm], nn.Module]
) -> nn.Module:
    """A copy of the network with a plain layer in place of every layer of members."""
    return _swap(
        copy.deepcopy(network),
        lambda layer: isinstance(layer, MemberLayer | MemberNorm),
        lambda layer: plain(cast(MemberLayer, layer)),
    )


def _swap(
    model: nn.Module,
    chosen: Callable[[nn.Module], bool],
    replace: Callable[[nn.Module], nn.Module],
) -> nn.Module:
    """`model` with what is chosen replaced, wherever it stands; changed in place."""
    if chosen(model):
        return replace(model)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if chosen(child):
                setattr(parent, name, replace(child))
    return model
