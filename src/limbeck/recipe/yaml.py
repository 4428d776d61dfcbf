"""YAML in and out, with numbers as YAML 1.2 reads them (`1e-3` is a number)."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import yaml

from limbeck.errors import InputError
from limbeck.recipe.folder import write_text


class _Loader(yaml.SafeLoader):
    """The safe loader, with the floats of YAML 1.2."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs if tag != "tag:yaml.org,2002:float"]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:(?:\.\d+|\d+\.\d*)(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.inf|\.nan)$", re.I),
    list("-+0123456789."),
)


def parse(text: str) -> Any:
    """Plain data from YAML text.

    Raises:
        InputError: the text is not YAML, or asks for anything but plain data.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise InputError(f"not readable as YAML: {' '.join(str(error).split())}") from None


def read(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        InputError: no such file, not YAML, or not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise InputError(f"cannot read the recipe {path}: {reason}") from None
    value = parse(text)
    if not isinstance(value, dict):
        raise InputError(
            f"the recipe {path} must be a mapping of keys, found {type(value).__name__}"
        )
    return value


def show(value: Any) -> None:
    """Print plain data as YAML on standard output."""
    sys.stdout.write(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))


def write(path: Path, value: Any) -> None:
    """Write plain data as YAML, whole or not at all."""
    write_text(path, yaml.safe_dump(value, sort_keys=False, allow_unicode=True))
