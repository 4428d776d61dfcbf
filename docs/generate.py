"""Writes the reference pages that are functions of the code: ``python docs/generate.py``."""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import re
import types
import typing
from pathlib import Path

import method_pages
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from limbeck import functional
from limbeck.cli.arguments import make_parser
from limbeck.cli.verbs import VERBS
from limbeck.methods.build import spec_class
from limbeck.methods.registry import METHODS
from limbeck.models.catalog import NETWORKS
from limbeck.recipe import spec

DOCS = Path(__file__).parent
CONFIG = DOCS.parent / "zensical.toml"
NOTE = "<!-- Written by docs/generate.py. -->\n\n"

SECTIONS = {
    "Recipe": spec.Recipe,
    "data": spec.DataSpec,
    "teachers": spec.TeacherSpec,
    "input": spec.InputSpec,
    "training": spec.Training,
    "training.optimizer": spec.Optimizer,
    "training.schedule": spec.Schedule,
    "compare": spec.CompareSpec,
    "compare.arms": spec.ArmSpec,
}

LOSSES = {
    "Logits": ["logits", "logit_relations", "temperature", "topk"],
    "Logits of sequences": ["sequence", "adaptive_kl", "fused", "fused_jsd", "uld"],
    "Self-distillation and peers": ["self_distillation"],
    "Other outputs": ["outputs", "regions"],
    "Features": ["features", "attention", "layers", "boundaries", "projected"],
    "Relations between samples": ["relations", "contrastive"],
    "Several teachers": ["ensemble", "min_norm", "diversity", "perturbation"],
    "Effective logits": ["effective"],
    "Noisy teachers and pools": ["slam", "noise", "noise_evidence", "label_shift", "debias"],
    "Pieces": ["maps", "calibration", "batch_ensemble", "_common"],
}


def pages() -> dict[Path, str]:
    """The generated pages by path."""
    return {
        DOCS / "reference" / "commands.md": commands(),
        DOCS / "reference" / "losses.md": losses(),
        DOCS / "methods" / "index.md": methods(),
        **method_pages.pages(),
        CONFIG: method_pages.navigation(CONFIG.read_text()),
    }


def commands() -> str:
    """Every verb with its flags, and every key of a recipe."""
    parser = make_parser()
    subparsers = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    verbs = "\n".join(_verb(name, subparsers.choices[name]) for name in VERBS)
    tables = "\n".join(_section(name, cls) for name, cls in SECTIONS.items())
    return f"{NOTE}# Commands and recipe\n\n{_INTRODUCTION}\n{verbs}\n{tables}\n{_models()}"


_INTRODUCTION = """`limbeck VERB --help` shows the same. `train`, `distill` and `compare` take
a recipe file, and every key of a recipe as a flag that wins over the file:
`--training.optimizer.lr 0.1`, `--method dkd` (short for `--method.name dkd`), `--teachers A B C`.

Exit status: 0 done; 1 the run failed; 2 bad input; 130 interrupted.
"""


_EXAMPLE = "<!-- not run: an example, which names runs of yours -->"


def _verb(name: str, parser: argparse.ArgumentParser) -> str:
    verb = VERBS[name]
    arguments = [_argument(action) for action in parser._actions if action.dest != "help"]
    lines = [
        f"## limbeck {name}\n\n{parser.description}\n",
        f"{_EXAMPLE}\n```bash\n{_folded(verb.example)}\n```\n",
        "| argument | default | |\n|---|---|---|",
        *arguments,
        "",
    ]
    if verb.recipe and not verb.reads:
        lines.append("And every key of the [recipe](#recipe).\n")
    elif keys := [key for key in verb.reads if key not in verb.shortcuts.values()]:
        lines.append(f"Of the [recipe](#recipe) also: {', '.join(f'`--{key}`' for key in keys)}.\n")
    return "\n".join(lines)


def _folded(command: str) -> str:
    """A command on lines that fit the page."""
    lines = [""]
    for part in command.replace(" --", "\n--").splitlines():
        if len(lines[-1]) + len(part) > 78:
            lines[-1] += " \\"
            lines.append(" ")
        lines[-1] += f" {part}"
    return "\n".join(lines).strip()


def _argument(action: argparse.Action) -> str:
    name = action.option_strings[0] if action.option_strings else action.metavar or action.dest
    default = "" if action.default in (None, False) else f"`{action.default}`"
    if isinstance(action.default, list):
        default = f"`{' '.join(action.default)}`"
    words = action.help or ""
    if action.choices:
        words = f"one of {', '.join(action.choices)}" + (f"; {words}" if words else "")
    return f"| `{_cell(str(name))}` | {default} | {_cell(words)} |"


def _section(name: str, cls: type[BaseModel]) -> str:
    title = "## Recipe" if name == "Recipe" else f"### {name}"
    told = meanings(cls)
    rows = [
        f"| `{key}` | {_cell(words(field.annotation))}{_bounds(field)} | {_default(field)} "
        f"| {_cell(told.get(key, ''))} |"
        for key, field in cls.model_fields.items()
    ]
    head = (inspect.getdoc(cls) or "").partition("\n\n")[0].replace("\n", " ")
    return "\n".join(
        [title, "", head, "", "| key | type | default | meaning |", "|---|---|---|---|", *rows, ""]
    )


def meanings(cls: type) -> dict[str, str]:
    """What the `Attributes` of a docstring say, by name."""
    _, _, listed = (inspect.getdoc(cls) or "").partition("Attributes:\n")
    found: dict[str, str] = {}
    name = ""
    for line in listed.splitlines():
        entry = re.match(r"    (\w+): (.*)", line)
        if entry:
            name = entry[1]
            found[name] = entry[2]
        elif name and line.startswith("     "):
            found[name] += f" {line.strip()}"
        elif not line.startswith(" "):
            name = ""
    return found


def words(hint: typing.Any) -> str:
    """A type in words."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return words(inner[0])
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(words(part) for part in inner)
    if origin is list:
        return f"list of {words(inner[0])}"
    if origin is tuple:
        return f"({', '.join(words(part) for part in inner)})"
    if origin is dict:
        return f"mapping to {words(inner[1])}"
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return f"[{hint.__name__}](#{_anchor(hint)})"
    plain = {bool: "true or false", int: "whole number", float: "number", str: "text"}
    return plain.get(hint, "`null`" if hint in (None, type(None)) else "any")


def _anchor(cls: type[BaseModel]) -> str:
    name = next(name for name, known in SECTIONS.items() if known is cls)
    return name.lower().replace(".", "")


def _bounds(field: FieldInfo) -> str:
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    limits = [
        f"{signs[key]} {getattr(rule, key)}"
        for rule in field.metadata
        for key in signs
        if hasattr(rule, key)
    ]
    return f", {' and '.join(limits)}" if limits else ""


def _default(field: FieldInfo) -> str:
    value = field.default
    if isinstance(value, BaseModel):
        return ""
    return "required" if field.is_required() else f"`{json.dumps(value)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _models() -> str:
    names = ", ".join(f"`{name}`" for name in NETWORKS)
    return (
        "## Reference networks\n\nAs `limbeck:NAME`; see [your own model](../guide/own-model.md) "
        f"for the whole syntax.\n\n{names}\n"
    )


def losses() -> str:
    """Every function of `limbeck.functional`, by kind."""
    homes = {name: getattr(functional, name).__module__ for name in functional.__all__}
    lines = [
        f"{NOTE}# Losses\n",
        "`import limbeck.functional as F`. First the student, second the teacher, then the target "
        "where one is needed; hyperparameters by keyword, with the papers' defaults. The mean is "
        "over samples, never over classes. No gradient flows into the teacher.\n",
    ]
    for title, rooms in LOSSES.items():
        lines.append(f"## {title}\n")
        for room in rooms:
            home = f"limbeck.functional.{room}"
            names = [name for name in dir(importlib.import_module(home)) if homes.get(name) == home]
            order = sorted(names, key=lambda name: _position(name))
            lines += [f"::: {home}.{name}\n" for name in order]
    return "\n".join(lines)


def _position(name: str) -> int:
    function = inspect.unwrap(getattr(functional, name))
    return function.__code__.co_firstlineno


def methods() -> str:
    """Every method of the registry, with its options."""
    lines = [
        f"{NOTE}# All methods\n",
        "`limbeck methods` prints the same list. [Adding one](contract.md) takes a line or a "
        "file.\n",
        "| method | what it does | needs | paper |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| [`{name}`]({name}.md) | {entry.summary} | {entry.needs} | {entry.paper} |"
        for name, entry in METHODS.items()
    ]
    lines += ["", "## Options", "", "| method | options and their defaults |", "|---|---|"]
    for name in METHODS:
        fields = spec_class(name).model_fields.items()
        options = [f"`{key}` {_default(field)}" for key, field in fields if key != "name"]
        lines.append(f"| `{name}` | {', '.join(options)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
        print(path.relative_to(DOCS.parent))
