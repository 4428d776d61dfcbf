"""From a reference to a module: reference networks, other libraries, the user's own functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from limbeck.errors import InputError, nearest
from limbeck.models.card import read_card
from limbeck.models.catalog import NETWORKS
from limbeck.models.imports import import_object, require
from limbeck.models.ref import ModelRef, parse_ref
from limbeck.models.weights import apply_weights, load_weights, plain_tensors_only

# Named one by one: others make transformers run code from the hub.
_FACTS = ("classes", "num_classes", "shape", "in_channels")  # passed without being asked
_HF_OPTIONS = ("revision", "subfolder", "ignore_mismatched_sizes")


def build_model(model: str | ModelRef, *, shape: tuple[int, ...], classes: int) -> nn.Module:
    """The model that a reference names, with its weights where it names some.

    New parameters are drawn from torch's global generator, as torch's own layers draw theirs.

    Args:
        model: see `parse_ref`; the option `members=M` of any network makes it a batch ensemble.
        shape: of one sample: (channels, height, width), (features,), or (length,) of token ids.
        classes: width of the output. The folder of a run keeps its own shape and classes.

    Returns:
        A module in training mode, on the CPU.

    Raises:
        InputError: a reference that cannot be read or built, or weights that do not fit.
    """
    ref = parse_ref(model) if isinstance(model, str) else model
    if ref.source == "run":
        return load_run(ref.name)
    if ref.source == "store":
        raise InputError(f"{ref.text!r} holds outputs and is no model; it can only be a teacher")
    network = _with_members(ref, shape, classes)
    if ref.weights is not None:
        apply_weights(network, load_weights(ref.weights), ref.weights)
    return network


def _with_members(ref: ModelRef, shape: tuple[int, ...], classes: int) -> nn.Module:
    """The network; with the option `members` a batch ensemble of as many."""
    options = dict(ref.options)
    members = options.pop("members", None)
    network = _BUILDERS[ref.source](replace(ref, options=options), shape, classes)
    if members is None:
        return network
    from limbeck.students.batch_ensemble import batch_ensemble

    if not isinstance(members, int):
        raise InputError(f"members={members} of {ref.text!r} must be a whole number, 2 or more")
    return batch_ensemble(network, members, seed=int(torch.randint(2**31, ())))


def load_run(path: str | Path) -> nn.Module:
    """The student of a finished run or an export, built from its card, with its weights.

    Args:
        path: the folder, or its `card.json`.

    Raises:
        InputError: no readable card, a student that only its user's code can build (a card is
            data: it may not say what to import), or weights that do not fit.
    """
    card = read_card(path)
    weights = card.folder / "student.safetensors"
    if card.source is None:
        raise InputError(
            f"the student of {str(card.folder)!r} was built in Python, so its card cannot rebuild "
            f"it: build it yourself and load {str(weights)!r}"
        )
    ref = parse_ref(card.source.partition("@")[0])
    if ref.source == "python":
        raise InputError(
            f"the student of {str(card.folder)!r} is built by {ref.name!r}, and code is not run on "
            f"a card's word: name the model yourself as '{ref.text}@{weights}'"
        )
    if ref.source == "run":
        raise InputError(
            f"the card of {str(card.folder)!r} names another run, {card.source!r}, where it must "
            f"name what builds the student"
        )
    network = build_model(ref, shape=card.shape, classes=len(card.classes))
    apply_weights(network, load_weights(weights), weights)
    return network


def count_parameters(model: nn.Module) -> int:
    """How many numbers the parameters of `model` hold, trained or frozen; buffers do not count."""
    return sum(parameter.numel() for parameter in model.parameters())


def _limbeck(ref: ModelRef, shape: tuple[int, ...], classes: int) -> nn.Module:
    network = NETWORKS[ref.name]
    function = import_object(network.function)
    return _call(ref, function, network.fixed, shape, classes)


def _python(ref: ModelRef, shape: tuple[int, ...], classes: int) -> nn.Module:
    function = import_object(ref.name)
    try:
        inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise InputError(f"{ref.name!r} is no function with named arguments: {error}") from error
    return _call(ref, function, {}, shape, classes)


def _timm(ref: ModelRef, shape: tuple[int, ...], classes: int) -> nn.Module:
    timm = require("timm", extra="timm", purpose=repr(ref.text))
    given = {"num_classes": classes, "in_chans": _channels(ref, shape), **ref.options}
    with plain_tensors_only():
        return _built(ref, partial(timm.create_model, ref.name, **given))


def _torchvision(ref: ModelRef, shape: tuple[int, ...], classes: int) -> nn.Module:
    torchvision = require("torchvision", extra="torchvision", purpose=repr(ref.text))
    if _channels(ref, shape) != 3:
        raise InputError(
            f"{ref.text!r} takes images of 3 channels, the samples have {shape[0]}; the networks "
            f"of limbeck and timm take any number"
        )
    given = {"weights": None, "num_classes": classes, **ref.options}
    with plain_tensors_only():
        return _built(ref, partial(torchvision.models.get_model, ref.name, **given))


def _hf(ref: ModelRef, shape: tuple[int, ...], classes: int) -> nn.Module:
    transformers = require("transformers", extra="transformers", purpose=repr(ref.text))
    for option in ref.options:
        if option not in _HF_OPTIONS:
            raise InputError(f"unknown option {option!r} of {ref.text!r} ({_known(_HF_OPTIONS)})")
    kind = "Image" if len(shape) == 3 else "Sequence"
    loader = getattr(transformers, f"AutoModelFor{kind}Classification")
    given = {"num_labels": classes, "trust_remote_code": False, **ref.options}
    with plain_tensors_only():
        return _built(ref, partial(loader.from_pretrained, ref.name, **given))


_BUILDERS: Mapping[str, Callable[[ModelRef, tuple[int, ...], int], nn.Module]] = {
    "limbeck": _limbeck,
    "python": _python,
    "timm": _timm,
    "torchvision": _torchvision,
    "hf": _hf,
}


def _call(
    ref: ModelRef,
    function: Callable[..., Any],
    fixed: Mapping[str, Any],
    shape: tuple[int, ...],
    classes: int,
) -> nn.Module:
    """Call `function` with what its signature asks for, and with the options."""
    signature = inspect.signature(function).parameters
    parameters = {name: parameter for name, parameter in signature.items() if name not in fixed}
    facts: dict[str, Any] = {"classes": classes, "num_classes": classes, "shape": shape}
    if len(shape) == 3:
        facts["in_channels"] = shape[0]
    given = {name: value for name, value in facts.items() if name in parameters} | ref.options
    _check_options(ref, parameters)
    for name, parameter in parameters.items():
        if name not in given and parameter.default is parameter.empty and not _starred(parameter):
            if name == "in_channels":
                _channels(ref, shape)
            raise InputError(f"{ref.text!r} needs the option {name!r}: write ?{name}=VALUE")
    return _built(ref, partial(function, **fixed, **given))


def _check_options(ref: ModelRef, parameters: Mapping[str, inspect.Parameter]) -> None:
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    named = [name for name, parameter in parameters.items() if not _starred(parameter)]
    for option in ref.options:
        if option not in named:
            raise InputError(
                f"unknown option {option!r} of {ref.text!r}{nearest(option, named)} "
                f"({_known(name for name in named if name not in _FACTS)})"
            )


def _starred(parameter: inspect.Parameter) -> bool:
    return parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)


def _known(options: Iterable[str]) -> str:
    return f"known: {', '.join(options) or 'none'}"


def _channels(ref: ModelRef, shape: tuple[int, ...]) -> int:
    if len(shape) != 3:
        raise InputError(
            f"{ref.text!r} takes images of shape (channels, height, width), the samples have "
            f"shape {shape}"
        )
    return shape[0]


def _built(ref: ModelRef, build: Callable[[], Any]) -> nn.Module:
    """What `build` returns, where it is a module; what it raises, as one sentence."""
    try:
        network = build()
    except InputError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        raise InputError(f"{ref.text!r} could not be built: {reason}") from error
    if not isinstance(network, nn.Module):
        raise InputError(f"{ref.text!r} gave a {type(network).__name__}, not a torch.nn.Module")
    return network
