"""`limbeck doctor`: what is installed here, and what each missing extra would bring."""

from __future__ import annotations

import argparse
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from limbeck import __version__
from limbeck.cli import say
from limbeck.cli.arguments import Overrides

CORE = ("torch", "numpy", "pydantic", "PyYAML", "safetensors", "rich", "scikit-learn", "matplotlib")
EXTRAS = {
    "arrow": (("pyarrow",), "Parquet tables"),
    "onnx": (("onnx", "onnxscript", "onnxruntime"), "export to ONNX and int8, with parity checks"),
    "search": (("optuna",), "the journal of a search"),
    "timm": (("timm",), "models as timm:NAME"),
    "torchvision": (("torchvision",), "models as torchvision:NAME"),
    "transformers": (("transformers",), "models as hf:PATH"),
    "hf": (("datasets", "huggingface_hub"), "download of named data sets"),
}


def run(options: argparse.Namespace, overrides: Overrides) -> int:
    """Print what is found."""
    if options.schema:
        from limbeck.recipe.spec import Recipe

        say.as_json(Recipe.model_json_schema())
        return 0
    facts = findings()
    if options.json:
        say.as_json(facts)
        return 0
    output = say.results()
    output.print(f"[bold]limbeck {facts['limbeck']}[/bold] on Python {facts['python']}")
    output.print(f"devices   {', '.join(facts['devices'])}, {facts['processors']} processors")
    output.print(f"data      {facts['data'] or 'LIMBECK_DATA is not set'}\n")
    for name, found in facts["core"].items():
        output.print(f"  {_mark(found)} {name:14} {found or 'missing'}")
    output.print("\nextras")
    for name, extra in facts["extras"].items():
        output.print(f"  {_mark(extra['installed'])} {name:14} {extra['brings']}")
    missing = [name for name, extra in facts["extras"].items() if not extra["installed"]]
    if missing:
        output.print(f"\nall that is missing: pip install 'limbeck\\[{','.join(missing)}]'")
    return 0


def findings() -> dict[str, Any]:
    """Everything that `doctor` prints, JSON-ready."""
    return {
        "limbeck": __version__,
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "devices": _devices(),
        "data": os.environ.get("LIMBECK_DATA"),
        "core": {name: _version(name) for name in CORE},
        "extras": {
            name: {"installed": all(_version(p) for p in packages), "brings": brings}
            for name, (packages, brings) in EXTRAS.items()
        },
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _devices() -> list[str]:
    import torch

    names = ["cpu"]
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        names += [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(count)]
    if torch.backends.mps.is_available():
        names.append("mps")
    return names


def _mark(found: Any) -> str:
    return "[green]✓[/green]" if found else "[yellow]–[/yellow]"
