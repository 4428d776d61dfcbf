"""The processes that train together, and the reductions between them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, distributed

from limbeck.errors import InputError

T = TypeVar("T")


class Ranks:
    """The world of a run: one process, or those that torchrun started.

    Args:
        device: where tensors to be reduced lie.
    """

    def __init__(self, device: torch.device) -> None:
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        self.device = device
        if self.count > 1 and not distributed.is_initialized():
            if device.type == "cuda":
                torch.cuda.set_device(device)
            distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")

    @property
    def first(self) -> bool:
        """Whether this process writes files and speaks to the user."""
        return self.rank == 0

    def mean(self, tensors: Sequence[Tensor], *, differentiable: bool = False) -> list[Tensor]:
        """The mean of each tensor over the ranks, in one reduction; bitwise equal on all."""
        if self.count == 1:
            return list(tensors)
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        if differentiable:
            from torch.distributed.nn.functional import all_reduce

            flat = all_reduce(flat)  # type: ignore[no-untyped-call]
        else:
            distributed.all_reduce(flat)
        pieces = torch.split(flat / self.count, [tensor.numel() for tensor in tensors])
        return [piece.view_as(tensor) for piece, tensor in zip(pieces, tensors, strict=True)]

    def maximum(self, tensor: Tensor) -> None:
        """Replace `tensor` by its maximum over the ranks."""
        if self.count > 1:
            distributed.all_reduce(tensor, distributed.ReduceOp.MAX)

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Give every rank the first rank's values."""
        if self.count > 1:
            for tensor in tensors:
                distributed.broadcast(tensor.detach(), 0)

    def agree(self, value: T) -> T:
        """The first rank's value."""
        box = [value]
        if self.count > 1:
            distributed.broadcast_object_list(box, 0, device=self.device)
        return box[0]

    def wait(self) -> None:
        """Wait until every rank is here."""
        if self.count > 1:
            distributed.barrier()


def choose_device(name: str) -> torch.device:
    """The device called `name`; `auto` takes an accelerator where there is one.

    Raises:
        InputError: no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(
            f"training.device {name!r} is no device; take auto, cpu, cuda, cuda:N or mps"
        ) from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError("training.device is 'cuda', but torch finds no CUDA device; use 'cpu'")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError("training.device is 'mps', but torch finds no such device; use 'cpu'")
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return device
