"""YAML in and out, with plain words as YAML 1.2 reads them.

`1e-3` is a number; `no`, `010`, `12:30` and `2026-01-02` are no truth value, octal number, time
and date. What is written is quoted where an older reader would take it for one of these.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import yaml

from limbeck.errors import InputError
from limbeck.recipe.folder import write_text


class _Loader(yaml.SafeLoader):
    """The safe loader, with the plain words of YAML 1.2."""


_WORDS = {
    "null": r"^(?:~|null|Null|NULL|)$",
    "bool": r"^(?:true|True|TRUE|false|False|FALSE)$",
    "int": r"^[-+]?(?:0|[1-9]\d*)$",
    "float": r"^[-+]?(?:(?:\.\d+|\d+\.\d*)(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.(?i:inf|nan))$",
}
_Loader.yaml_implicit_resolvers = {}
for _kind, _pattern in _WORDS.items():
    # No first letter: every plain word is compared.
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(_pattern), None)


class _Dumper(yaml.SafeDumper):
    """The safe dumper; a text that this loader or an older one would take for another is quoted."""


_Dumper.yaml_implicit_resolvers = {
    **yaml.SafeDumper.yaml_implicit_resolvers,
    **_Loader.yaml_implicit_resolvers,
}


def _dump(value: Any) -> str:
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


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
    try:
        value = parse(text)
    except InputError as error:
        raise InputError(f"the recipe {path} is {error}") from None
    if not isinstance(value, dict):
        raise InputError(
            f"the recipe {path} must be a mapping of keys, found {type(value).__name__}"
        )
    return value


def show(value: Any) -> None:
    """Print plain data as YAML on standard output."""
    sys.stdout.write(_dump(value))


def write(path: Path, value: Any) -> None:
    """Write plain data as YAML, whole or not at all."""
    write_text(path, _dump(value))
