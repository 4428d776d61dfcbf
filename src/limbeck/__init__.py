"""limbeck: knowledge distillation on PyTorch. Any teacher, any student, any data, and proof.

Names are imported on first use, so that the command line answers before torch is loaded.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from limbeck.data.load import load_data
    from limbeck.errors import InputError, LimbeckError, RunError
    from limbeck.runs.api import distill, train
    from limbeck.runs.compare import Comparison, compare
    from limbeck.runs.diagnose import diagnose
    from limbeck.runs.evaluate import evaluate, predict
    from limbeck.runs.execute import Result
    from limbeck.runs.export import export
    from limbeck.runs.label import label
    from limbeck.runs.load import load
    from limbeck.runs.shrink import shrink
    from limbeck.store.reader import TeacherStore

__version__ = "0.1.0"

_HOMES = {
    "Comparison": "limbeck.runs.compare",
    "InputError": "limbeck.errors",
    "LimbeckError": "limbeck.errors",
    "Result": "limbeck.runs.execute",
    "RunError": "limbeck.errors",
    "TeacherStore": "limbeck.store.reader",
    "compare": "limbeck.runs.compare",
    "diagnose": "limbeck.runs.diagnose",
    "distill": "limbeck.runs.api",
    "evaluate": "limbeck.runs.evaluate",
    "export": "limbeck.runs.export",
    "label": "limbeck.runs.label",
    "load": "limbeck.runs.load",
    "load_data": "limbeck.data.load",
    "predict": "limbeck.runs.evaluate",
    "shrink": "limbeck.runs.shrink",
    "train": "limbeck.runs.api",
}
_ROOMS = ("functional", "methods", "nn", "recipe", "students", "teachers")

__all__ = [
    "Comparison",
    "InputError",
    "LimbeckError",
    "Result",
    "RunError",
    "TeacherStore",
    "__version__",
    "compare",
    "diagnose",
    "distill",
    "evaluate",
    "export",
    "label",
    "load",
    "load_data",
    "predict",
    "shrink",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _ROOMS:
        return importlib.import_module(f"limbeck.{name}")
    raise AttributeError(f"module 'limbeck' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_ROOMS])
