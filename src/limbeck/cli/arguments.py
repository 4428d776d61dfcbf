"""From the words of a command to its flags. What no flag claims overrides a key of the recipe."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from limbeck import __version__
from limbeck.cli.verbs import SHORTCUTS, VERBS, Verb
from limbeck.errors import InputError, nearest

Overrides = list[tuple[str, Any]]
"""Dotted path and value, in the order in which they were typed."""


class Parser(argparse.ArgumentParser):
    """Complains as everything else does: in one sentence, raised and not printed."""

    def error(self, message: str) -> NoReturn:  # noqa: D102
        raise InputError(f"{message} (see `{self.prog} --help`)")


SYNONYMS = {"teacher": "teachers", "model": "student"}
"""Other spellings of two keys: one teacher, and the model that `train` trains."""


def make_parser() -> Parser:
    """The parser of the whole command."""
    parser = Parser(
        prog="limbeck",
        usage="limbeck VERB [flags]",
        description="Knowledge distillation: any teacher, any student, any data, and proof.",
        epilog="limbeck VERB --help shows the flags and an example of each.",
    )
    parser.add_argument("--version", action="version", version=f"limbeck {__version__}")
    verbs = parser.add_subparsers(
        title="verbs", dest="verb", metavar="VERB [flags]", prog="limbeck"
    )
    for name, verb in VERBS.items():
        _add_verb(verbs, name, verb)
    return parser


def _add_verb(verbs: Any, name: str, verb: Verb) -> None:
    whole = verb.recipe and not verb.reads
    parser = verbs.add_parser(
        name,
        help=verb.summary,
        description=f"{verb.summary[0].upper()}{verb.summary[1:]}.",
        epilog=f"example:\n  {verb.example}{_RECIPE_HELP if whole else _keys_help(verb)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verb.arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    for flag in verb.shortcuts:
        parser.add_argument(f"--{flag}", help=_SHORTCUT_HELP[flag])
    if "seed" in verb.shortcuts:
        parser.add_argument(
            "--dry-run", action="store_true", help="check everything, print the recipe, and stop"
        )


_SHORTCUT_HELP = {
    "device": "auto, cpu, cuda, cuda:1 or mps",
    "precision": "fp32 or bf16",
    "workers": "threads that read streamed samples ahead",
    "seed": "of everything random",
    "out": "where to write",
}
_RECIPE_HELP = """

Every key of a recipe is a flag: --student MODEL, --teacher MODEL, --teachers A B C,
--data SOURCE, --data.limit 10000, --method NAME, --method.temperature 4,
--training.epochs 30, --training.optimizer.lr 0.1, --training.views flip crop, ...
MODEL is SOURCE:NAME[?key=value][@WEIGHTS], a run's folder, or package.module:function."""


def _keys_help(verb: Verb) -> str:
    keys = [key for key in verb.reads if key not in SHORTCUTS.values()]
    if not keys:
        return ""
    flags = "\n  ".join(_KEY_HELP[key] for key in keys)
    return f"\n\nof a recipe's keys it reads\n  {flags}"


_KEY_HELP = {
    "student": "--student MODEL, where code of yours builds it",
    "task": "--task NAME",
    "teachers": "--teacher MODEL, --teachers A B, --teachers.0.taps PATH",
    "training.views": "--training.views flip crop",
    "training.view_count": "--training.view_count N, the same as --views N",
    "data": "--data SOURCE and --data.KEY",
    "training.metric": "--training.metric module:function",
}


def parse(parser: Parser, words: Sequence[str]) -> tuple[argparse.Namespace, Overrides]:
    """The verb's own flags, and the overrides of the recipe.

    Raises:
        InputError: no verb, or a word that is neither.
    """
    name = words[0] if words else ""
    if name.startswith("-"):
        return parser.parse_args(words), []
    if name not in VERBS:
        found = f"unknown verb {name!r}{nearest(name, VERBS)}" if name else "name a verb"
        raise InputError(f"{found} (`limbeck --help` lists them all)")
    plain, overrides = _take_overrides(name, words) if VERBS[name].recipe else (list(words), [])
    options, strange = parser.parse_known_args(plain)
    if strange:
        raise InputError(f"{name} does not take {' '.join(strange)} (see `limbeck {name} --help`)")
    return options, overrides


_OWN = (
    *(*SHORTCUTS, "json", "dry-run", "resume", "help", "split", "formats"),
    *("from", "views", "top-k", "dtype", "features", "batch", "splits", "skip-nonfinite"),
    *("samples", "memory", "skip", "reduction", "widths", "size-epochs"),
)
_LISTS = (
    *("teachers", "taps", "classes", "mean", "std", "views", "class_weights"),
    *("betas", "milestones", "temperatures", "weights"),
)
"""Keys that take all the words that follow."""


def _take_overrides(verb: str, words: Sequence[str]) -> tuple[list[str], Overrides]:
    """Take `--a.b 1 --teachers x y` out of the words, as [("a.b", 1), ("teachers", ["x", "y"])]."""
    plain: list[str] = []
    overrides: Overrides = []
    queue = list(words)
    while queue:
        word = queue.pop(0)
        path, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or len(word) == 2 or path in _OWN:
            plain.append(word)
            continue
        _check_key(verb, path)
        values = [value] if equals else []
        many = path.rpartition(".")[2] in _LISTS
        while queue and not queue[0].startswith("--") and (many or not values):
            values.append(queue.pop(0))
        overrides.append((path, _value(path, values)))
    return plain, overrides


def _value(path: str, values: list[str]) -> Any:
    from limbeck.recipe.override import value_of

    if not values:
        raise InputError(f"--{path} needs a value")
    found = [value_of(value) for value in values]
    return found[0] if len(found) == 1 else found


def _check_key(name: str, path: str) -> None:
    from limbeck.recipe.spec import Recipe

    known = [*Recipe.model_fields, *SYNONYMS]
    key, dot, rest = path.partition(".")
    if key not in known:
        hint = nearest(key, [*known, *_OWN])
        raise InputError(f"unknown flag --{path}{hint} (see `limbeck {name} --help`)")
    if not VERBS[name].takes(f"{SYNONYMS.get(key, key)}{dot}{rest}"):
        raise InputError(f"{name} does not read --{path} (see `limbeck {name} --help`)")
