"""How a model is named in a recipe and on the command line. Torch is not imported here."""

from __future__ import annotations

import importlib.util
import re
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

from limbeck.errors import InputError, nearest
from limbeck.models.card import CARD
from limbeck.models.catalog import NETWORKS
from limbeck.models.imports import working_folder_importable

Option = str | int | float | bool | list[int]
"""The value of an option, by how it is written."""

SOURCES = ("limbeck", "timm", "torchvision", "hf", "store")
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".th")

_SYNTAX = "SOURCE:NAME[?key=value&...][@WEIGHTS]"
_KNOWN = ", ".join([*(f"{source}:NAME" for source in SOURCES), "package.module:function"])
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_WHOLE = re.compile(r"[+-]?\d+")


@dataclass(frozen=True)
class ModelRef:
    """A model as the user named it.

    Attributes:
        source: `limbeck`, `timm`, `torchvision`, `hf`, `python` (a function of the user's),
            `run` (the folder of a run or of an export) or `store` (a teacher's stored outputs).
        name: within the source; `package.module:function` for `python`, a folder for `run` and
            `store`.
        options: arguments for whatever builds the model.
        weights: file of weights to load, None: those that the source gives.
        text: what the user typed.
    """

    source: str
    name: str
    options: dict[str, Option] = field(default_factory=dict)
    weights: str | None = None
    text: str = ""

    def with_options(self, **options: Option) -> ModelRef:
        """The same reference with these options too, for what only the data can tell."""
        every = {**self.options, **options}
        plain, at, weights = self.text.partition("@")
        query = "&".join(f"{key}={_written(value)}" for key, value in every.items())
        text = f"{plain.partition('?')[0]}?{query}{at}{weights}"
        return replace(self, options=every, text=text)


def parse_ref(text: str) -> ModelRef:
    """Read `SOURCE:NAME[?key=value&...][@WEIGHTS]`, or the path of a run or of its card.

    Whole numbers, numbers, `true` and `false`, and comma lists of whole numbers get their type;
    every other value is text. Nothing is imported or built here.

    Raises:
        InputError: what cannot be read, an unknown source or network, a file that is not there.
    """
    if text.startswith("store:"):
        return _parse_store(text)
    if text and Path(text).exists():
        return _parse_path(text)
    plain, at, weights = text.partition("@")
    plain, question, query = plain.partition("?")
    source, colon, name = plain.partition(":")
    if not (source and colon and name):
        raise InputError(
            f"cannot read the model {text!r}{nearest(text, [f'limbeck:{n}' for n in NETWORKS])} "
            f"(a model is {_SYNTAX}, or the existing folder of a run; known: {_KNOWN})"
        )
    options = _parse_options(query, text) if question else {}
    file = _parse_weights(weights, text) if at else None
    if source not in SOURCES:
        _check_function(source, name, text)
        return ModelRef("python", plain, options, file, text)
    _check_name(source, name)
    return ModelRef(source, name, options, file, text)


def names_code(text: str) -> bool:
    """Whether `text` names a function of the user's, which building the model would run."""
    plain = text.partition("@")[0].partition("?")[0]
    module, colon, function = plain.partition(":")
    return bool(colon) and module not in SOURCES and _dotted(module, function)


def _dotted(module: str, function: str) -> bool:
    return all(part.isidentifier() for part in [*module.split("."), function])


def _parse_store(text: str) -> ModelRef:
    folder, question, query = text.removeprefix("store:").partition("?")
    if not Path(folder).is_dir():
        raise InputError(
            f"there is no store at {folder!r} ({text!r}); make one with `limbeck label`"
        )
    return ModelRef("store", folder, _parse_options(query, text) if question else {}, None, text)


def _parse_path(text: str) -> ModelRef:
    path = Path(text)
    folder = path if path.is_dir() else path.parent
    if path.is_file() and path.suffix != ".json":
        raise InputError(
            f"{text!r} is a file, not a model: write SOURCE:NAME@{text} for weights, or name the "
            f"folder of a run"
        )
    for part in (CARD, "student.safetensors"):
        if not (folder / part).is_file():
            raise InputError(
                f"{str(folder)!r} holds no {part}: name the folder of a finished run or of an "
                f"export, or a model as {_SYNTAX}"
            )
    return ModelRef("run", str(folder), {}, None, text)


def _parse_options(query: str, text: str) -> dict[str, Option]:
    options: dict[str, Option] = {}
    for part in query.split("&"):
        key, _, value = part.partition("=")
        if not key.isidentifier() or not value:
            raise InputError(f"cannot read the option {part!r} of {text!r}: write key=value")
        if key in options:
            raise InputError(f"the option {key!r} of {text!r} is given twice")
        options[key] = _typed(value)
    return options


def _typed(value: str) -> Option:
    if value in ("true", "false"):
        return value == "true"
    if _WHOLE.fullmatch(value):
        return int(value)
    if _NUMBER.fullmatch(value):
        return float(value)
    parts = value.split(",")
    if len(parts) > 1 and all(_WHOLE.fullmatch(part) for part in parts):
        return [int(part) for part in parts]
    return value


def _written(value: Option) -> str:
    """The inverse of `_typed`."""
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _parse_weights(weights: str, text: str) -> str:
    path = Path(weights).expanduser()
    if path.suffix not in WEIGHT_SUFFIXES:
        raise InputError(
            f"the weights {weights!r} of {text!r} must be a file that ends in one of "
            f"{', '.join(WEIGHT_SUFFIXES)}"
        )
    if not path.is_file():
        raise InputError(f"the weights {weights!r} of {text!r} do not exist")
    return str(path)


def _check_name(source: str, name: str) -> None:
    if source == "limbeck" and name not in NETWORKS:
        raise InputError(
            f"unknown network limbeck:{name}{nearest(name, NETWORKS)} "
            f"(known: {', '.join(NETWORKS)})"
        )
    if source == "hf" and name.startswith(("/", "./", "../")) and not Path(name).exists():
        raise InputError(f"the model folder {name!r} of hf:{name} does not exist")


def _check_function(module: str, function: str, text: str) -> None:
    """`package.module:function` needs a package that is there; it is not imported yet."""
    package = module.partition(".")[0]
    if not _dotted(module, function) or not _importable(package):
        raise InputError(
            f"unknown source {module!r} in {text!r}{nearest(module, SOURCES)} (known: {_KNOWN}, or "
            f"the folder of a run)"
        )


def _importable(package: str) -> bool:
    with working_folder_importable():
        return package in sys.modules or importlib.util.find_spec(package) is not None
