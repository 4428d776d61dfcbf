"""Reading files of weights without running anything, and loading them into a model."""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from limbeck.errors import InputError

_NESTS = ("state_dict", "model_state_dict", "model", "net")
_PREFIXES = ("module.", "_orig_mod.")  # left by DataParallel and by torch.compile
_SHOWN = 3


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a `.safetensors`, `.pt`, `.pth` or `.th` file, on the CPU.

    A state dict that lies under `state_dict`, `model_state_dict`, `model` or `net`, and names
    that all begin with `module.`, are unwrapped.

    Raises:
        InputError: a file that is missing or damaged, that is a pickle of more than plain
            tensors (it is not run), or that holds no state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"the weights {str(path)!r} do not exist")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    while isinstance(content, Mapping) and (nest := _nest(content)):
        content = content[nest]
    if not _is_state(content):
        raise InputError(f"{str(path)!r} holds {_describe(content)}, not a state dict of tensors")
    state = {str(name): value for name, value in content.items()}
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _read_safetensors(path: Path) -> Any:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{str(path)!r} is not a readable safetensors file: {error}") from error


def _read_pickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            # torch warns of pickle protocols that it did not write, then reads or refuses them.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{str(path)!r} was refused and not run: it is not a pickle of plain tensors only; "
            f"save the model's state_dict() as .safetensors instead"
        ) from error
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{str(path)!r} is not a readable file of weights: {reason}") from error


def _nest(content: Mapping[Any, Any]) -> str | None:
    return next((key for key in _NESTS if isinstance(content.get(key), Mapping)), None)


def _is_state(content: Any) -> bool:
    return (
        isinstance(content, Mapping)
        and bool(content)
        and all(isinstance(value, Tensor) for value in content.values())
    )


def _describe(content: Any) -> str:
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    return f"a mapping of {_some(content)}" if content else "an empty mapping"


@contextmanager
def plain_tensors_only() -> Iterator[None]:
    """Inside, `torch.load` refuses other pickles even where a library asks for them."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def apply_weights(model: nn.Module, state: Mapping[str, Tensor], path: str | Path) -> None:
    """Load `state` into `model`; every name and shape must fit.

    Only `num_batches_tracked` of batch normalization, which no output depends on, may be missing.

    Args:
        model: changed in place.
        state: name to tensor, see `load_weights`.
        path: where `state` comes from, for the message.

    Raises:
        InputError: names the first of the missing, unexpected and misshapen tensors.
    """
    own = model.state_dict()
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in own]
    misshapen = [k for k in own if k in state and own[k].shape != state[k].shape]
    shapes = [f"{k} ({_shape(state[k])}, not {_shape(own[k])})" for k in misshapen]
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    found = [f"{what}: {_some(names)}" for what, names in problems.items() if names]
    if found:
        if not (missing or unexpected) and (head := _other_head(own, state, misshapen)):
            found = [head]
        raise InputError(f"the weights {str(path)!r} do not fit the model; {'; '.join(found)}")
    model.load_state_dict(state, strict=False)


def _other_head(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], misshapen: Iterable[str]
) -> str:
    """The sentence for weights that differ only in the number of outputs of the last layer."""
    last = list(own)[-1]
    layer = last.rpartition(".")[0]
    same_layer = all(name.rpartition(".")[0] == layer for name in misshapen)
    same_rest = all(own[name].shape[1:] == state[name].shape[1:] for name in misshapen)
    if not (same_layer and same_rest):
        return ""
    return f"it is built for {own[last].shape[0]} classes, the file has {state[last].shape[0]}"


def _some(names: Iterable[Any]) -> str:
    every = [str(name) for name in names]
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(every[:_SHOWN]) + more


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"
