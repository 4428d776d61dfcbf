"""How a student learns from its teachers: one file a method, one line in the registry.

The registry answers without torch; the names below are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from limbeck.methods.base import Clock, Method, MethodSpec, Setting, Term
    from limbeck.methods.build import parse_method
    from limbeck.methods.entry import Entry, LossEntry
    from limbeck.methods.registry import register
    from limbeck.methods.term import TermModule, TermSpec
    from limbeck.methods.terms import Terms

_HOMES = {
    "Clock": "base",
    "Entry": "entry",
    "LossEntry": "entry",
    "Method": "base",
    "MethodSpec": "base",
    "Setting": "base",
    "Term": "base",
    "TermModule": "term",
    "TermSpec": "term",
    "Terms": "terms",
    "parse_method": "build",
    "register": "registry",
}

__all__ = [
    "Clock",
    "Entry",
    "LossEntry",
    "Method",
    "MethodSpec",
    "Setting",
    "Term",
    "TermModule",
    "TermSpec",
    "Terms",
    "parse_method",
    "register",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"limbeck.methods.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'limbeck.methods' has no attribute {name!r}")
