"""Imports by name: functions that a user typed, and optional libraries. Torch is not imported."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from limbeck.errors import InputError


@contextmanager
def working_folder_importable() -> Iterator[None]:
    """The working folder comes first on the import path inside, and last from then on.

    First, because the user means their own file; not for good, because a folder `datasets` or
    a file `onnx.py` there must not hide the library of that name.
    """
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
        if folder not in sys.path:
            sys.path.append(folder)


def import_object(path: str) -> Any:
    """What `package.module:name` names; the working folder is importable.

    Only for a path that the user typed: importing runs the module's code.

    Raises:
        InputError: a path that is not of this form, a module that cannot be imported, or one
            that has no such name.
    """
    module_path, colon, name = path.partition(":")
    if not (module_path and colon and name):
        raise InputError(f"cannot read {path!r}: write package.module:function")
    try:
        with working_folder_importable():
            module = importlib.import_module(module_path)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"cannot import {module_path!r} of {path!r}: {reason}") from error
    if not hasattr(module, name):
        file = getattr(module, "__file__", None) or "no file"
        raise InputError(f"the module {module_path!r} ({file}) has no {name!r}")
    return getattr(module, name)


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """An optional library.

    Args:
        module: its import name.
        extra: the extra of limbeck that brings it.
        purpose: what it is needed for, as the subject of the message.

    Raises:
        InputError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"{purpose} needs {module} ({error}): pip install 'limbeck[{extra}]'"
        ) from error
