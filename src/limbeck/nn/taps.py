"""Taps: reading intermediate activations of any module by their dotted path."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.errors import InputError, nearest


class Taps:
    """Reads the outputs of named sub-modules at every forward pass.

    A tensor is recorded, not copied: where the next module works in place (`inplace=True`), the
    record shows what that module left.

    Args:
        model: the module to read from; it is not changed, only hooked.
        paths: dotted paths as in `named_modules`.
        owner: "student" or "teacher", for error messages.

    Raises:
        InputError: a path that the model does not have.
    """

    def __init__(self, model: nn.Module, paths: Iterable[str], owner: str = "model") -> None:
        modules = dict(model.named_modules())
        self.values: dict[str, Tensor] = {}
        self._handles = []
        for path in paths:
            if path not in modules or not path:
                some = ", ".join([name for name in modules if name][:12])
                raise InputError(
                    f"the {owner} has no module {path!r} to tap{nearest(path, modules)} "
                    f"(it has: {some}, ...); `limbeck taps MODEL` lists them all"
                )
            self._handles.append(modules[path].register_forward_hook(self._reader(path, owner)))

    def _reader(self, path: str, owner: str) -> Any:
        def read(module: nn.Module, args: Any, output: Any) -> None:
            value = output[0] if isinstance(output, tuple | list) and output else output
            if not isinstance(value, Tensor):
                raise InputError(
                    f"the tap {path!r} of the {owner} gives {type(output).__name__}, not a tensor; "
                    f"tap one of its sub-modules"
                )
            self.values[path] = value

        return read

    def take(self) -> dict[str, Tensor]:
        """What the last forward pass left, by path; forgotten here, so that it can be freed."""
        values, self.values = self.values, {}
        return values

    def remove(self) -> None:
        """Unhook the model."""
        for handle in self._handles:
            handle.remove()


def tap_shapes(model: nn.Module, x: Tensor) -> dict[str, tuple[int, ...]]:
    """Every module path with the shape of its output for one sample, in the order of the calls.

    Args:
        model: any module; it is run once, in evaluation mode, and put back into its own.
        x: a batch of samples as the model wants them.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def reader(path: str) -> Any:
        def read(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                shapes[path] = tuple(output.shape[1:])

        return read

    named = [(path, module) for path, module in model.named_modules() if path]
    handles = [module.register_forward_hook(reader(path)) for path, module in named]
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(x)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return shapes
