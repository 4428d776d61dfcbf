"""Checks every `.npz` below a folder against limbeck: ``python tests/golden/run.py FOLDER``.

One line a file that fails; the last line counts passes, failures and known departures; the exit
status is 1 where anything failed. A file that no table knows is a failure. See `cases/__init__.py`
for how to add one.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cases
import numpy as np
import torch
from cases import Arrays, Case, Close, Vector
from torch import Tensor

PRECISIONS = {torch.float64: 1e-5, torch.float32: 1e-4}  # relative to the largest stored value


def table(name: str) -> dict[str, Any]:
    """The tables called `name` of all modules of the package `cases`, as one."""
    merged: dict[str, Any] = {}
    for module in pkgutil.iter_modules(cases.__path__):
        rows = getattr(importlib.import_module(f"cases.{module.name}"), name, {})
        if twice := merged.keys() & rows.keys():
            raise SystemExit(f"{sorted(twice)} stands twice in the golden tables {name}")
        merged |= rows
    return merged


CASES, DEPARTURES, FAMILIES = table("CASES"), table("DEPARTURES"), table("FAMILIES")


def classic(case: Case, arrays: Arrays) -> Iterator[Close]:
    """The comparisons of a `method.variant` file: loss, gradients, outputs, in two precisions."""
    for dtype, relative in PRECISIONS.items():
        for name, ours in results(case, Vector(arrays, dtype)).items():
            if (stored := arrays.get(f"expected_{name}")) is not None:
                scale = np.abs(stored).max(initial=0.0) if stored.dtype.kind == "f" else 0.0
                yield Close(f"{name} ({str(dtype)[6:]})", ours, stored, relative * scale)


def results(case: Case, vector: Vector) -> Mapping[str, Tensor]:
    """What limbeck gives for one file: `loss`, `grad_X` for each stored one, further outputs."""
    outputs = case(vector)
    outputs = dict(outputs) if isinstance(outputs, Mapping) else {"loss": outputs}
    inputs = [getattr(vector, name) for name in vector.gradients]
    if inputs:
        gradients = torch.autograd.grad(outputs["loss"], inputs, allow_unused=True)
        for name, tensor, gradient in zip(vector.gradients, inputs, gradients, strict=True):
            outputs[f"grad_{name}"] = torch.zeros_like(tensor) if gradient is None else gradient
    return outputs


def comparisons(path: Path, arrays: Arrays) -> Iterator[Close]:
    """All comparisons of one file; a KeyError where no table knows it."""
    if (key := method_variant(path)) in CASES:
        found = list(classic(CASES[key], arrays))
        stored = {name.removeprefix("expected_") for name in arrays if name.startswith("expected_")}
        if missing := stored - {close.name.split(" (")[0] for close in found}:
            raise LookupError(f"the case gives no {', '.join(sorted(missing))}")
        yield from found
        return
    for pattern, family in FAMILIES.items():
        if re.fullmatch(pattern, path.stem):
            yield from family(arrays)
            return
    raise LookupError(f"no table in tests/golden/cases knows {path.stem!r}")


def method_variant(path: Path) -> str:
    """`kd.batchmean_T2` of `kd.batchmean_T2.c1.npz`; else the stem itself."""
    return re.sub(r"\.c\d+$", "", path.stem)


def complaints(path: Path) -> list[str]:
    """What is wrong with limbeck on one file, worst first come; empty where it passes."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        found = list(comparisons(path, arrays))
    except Exception as error:  # one bad file must not hide the others
        return [f"{type(error).__name__}: {error}"]
    if not found:
        return ["nothing in the file was compared"]
    return [text for close in found if (text := close.complaint())]


def main(arguments: list[str] | None = None) -> int:
    """Walks the folder, prints, and returns the exit status."""
    parser = argparse.ArgumentParser(description="Check golden vectors against limbeck.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--departures", action="store_true", help="also list known departures")
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    passed = failed = departures = 0
    for path in sorted(options.folder.rglob("*.npz")):
        if reason := DEPARTURES.get(method_variant(path)):
            departures += 1
            if options.departures:
                print(f"departure {path.relative_to(options.folder)}: {reason}")
        elif wrong := complaints(path):
            failed += 1
            print(f"FAILED {path.relative_to(options.folder)}: {'; '.join(wrong)}")
        else:
            passed += 1
    if not passed + failed + departures:
        print(f"FAILED {options.folder}: no .npz file in this folder")
        failed = 1
    print(f"{passed} passed, {failed} failed, {departures} departures")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
