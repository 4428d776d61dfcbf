"""The verbs and their flags. Whatever is written with a dot overrides the recipe."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from limbeck import __version__
from limbeck.errors import nearest

Overrides = list[tuple[str, Any]]
"""Dotted path and value, in the order in which they were typed."""


@dataclass(frozen=True)
class Verb:
    """One verb of the command.

    Attributes:
        summary: one line.
        example: shown under the help.
        arguments: adds its own arguments.
        recipe: whether it takes a recipe, and so the flags of a long run and dotted overrides.
    """

    summary: str
    example: str
    arguments: Callable[[argparse.ArgumentParser], Any]
    recipe: bool = True


def _none(parser: argparse.ArgumentParser) -> None:
    """No arguments of its own."""


def _resume(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--resume", metavar="RUN", help="go on with the run in this folder")


def _training(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", nargs="?", help="a recipe file (.yaml)")
    _resume(parser)


def _folder(what: str) -> Callable[[argparse.ArgumentParser], Any]:
    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("run", help=what)

    return add


def _evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN|CARD", help="the folder of a run or an export")
    parser.add_argument("--split", default="test", choices=("train", "val", "test"))


def _predict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN|CARD", help="the folder of a run or an export")
    parser.add_argument("samples", metavar="DATA", help=".npz with x, table, or folder of images")


def _export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN|CARD", help="the folder of a run")
    parser.add_argument(
        "--formats",
        nargs="+",
        default=["safetensors", "pt2", "onnx"],
        metavar="FORMAT",
        help="of safetensors, pt2, onnx, int8",
    )


def _taps(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="MODEL, for example limbeck:resnet20")
    parser.add_argument("--shape", default="3,32,32", help="of one sample, such as 3,32,32")
    parser.add_argument("--classes", type=int, default=10)


VERBS: dict[str, Verb] = {
    "quickstart": Verb(
        "the whole tour on built-in data: teacher, student, proof",
        "limbeck quickstart --out runs/quickstart",
        _resume,
    ),
    "train": Verb(
        "train a model on labels alone: a teacher, or the arm without one",
        "limbeck train --student limbeck:convnet?widths=32,64,128 --data fashion-mnist "
        "--training.epochs 5 --out runs/teacher",
        _training,
    ),
    "distill": Verb(
        "train a student with the help of a teacher",
        "limbeck distill --student limbeck:convnet?widths=8,16 --teacher runs/teacher "
        "--data fashion-mnist --method kd --method.temperature 4",
        _training,
    ),
    "compare": Verb(
        "arms by seeds, paired, beside no teacher and tuned KD",
        "limbeck compare --student limbeck:mlp?widths=8 --teacher runs/teacher --data digits "
        "--compare.seeds 5 --compare.arms.dkd.method dkd",
        _training,
    ),
    "evaluate": Verb(
        "metrics of a finished student on a split",
        "limbeck evaluate runs/student --split test",
        _evaluate,
    ),
    "predict": Verb(
        "labels and probabilities for new samples",
        "limbeck predict runs/student new.csv --out labels.csv",
        _predict,
    ),
    "export": Verb(
        "safetensors, torch.export, ONNX and int8, each checked",
        "limbeck export runs/student --formats onnx int8 --out shipped",
        _export,
    ),
    "report": Verb(
        "write the HTML report of a run or a comparison again",
        "limbeck report runs/student",
        _folder("the folder of a run or a comparison"),
        recipe=False,
    ),
    "methods": Verb("list every method", "limbeck methods", _none, recipe=False),
    "taps": Verb("list where a model can be tapped", "limbeck taps limbeck:resnet20", _taps, False),
    "doctor": Verb("what is installed, what each extra brings", "limbeck doctor", _none, False),
}

SHORTCUTS = {
    "device": "training.device",
    "precision": "training.precision",
    "workers": "training.workers",
    "seed": "seed",
    "out": "out",
}


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command."""
    parser = argparse.ArgumentParser(
        prog="limbeck",
        description="Knowledge distillation: any teacher, any student, any data, and proof.",
        epilog="limbeck VERB --help shows the flags and an example of each.",
    )
    parser.add_argument("--version", action="version", version=f"limbeck {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, verb in VERBS.items():
        _add_verb(verbs, name, verb)
    return parser


def _add_verb(verbs: Any, name: str, verb: Verb) -> None:
    parser = verbs.add_parser(
        name,
        help=verb.summary,
        description=f"{verb.summary[0].upper()}{verb.summary[1:]}.",
        epilog=f"example:\n  {verb.example}{_RECIPE_HELP if verb.recipe else ''}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verb.arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    if verb.recipe:
        for flag, path in SHORTCUTS.items():
            parser.add_argument(f"--{flag}", help=f"sets {path}" if path != flag else None)
        parser.add_argument(
            "--dry-run", action="store_true", help="check everything, print the recipe, and stop"
        )


_RECIPE_HELP = """

Every key of a recipe is a flag: --student MODEL, --teacher MODEL, --teachers A B C,
--data SOURCE, --data.limit 10000, --method NAME, --method.temperature 4,
--training.epochs 30, --training.optimizer.lr 0.1, --training.views flip crop, ...
MODEL is SOURCE:NAME[?key=value][@WEIGHTS], a run's folder, or package.module:function."""


def parse(
    parser: argparse.ArgumentParser, words: Sequence[str]
) -> tuple[argparse.Namespace, Overrides]:
    """The verb's own flags, and the overrides of the recipe.

    Exits with status 2 where a word is neither.
    """
    verb = next((word for word in words if word in VERBS), None)
    if verb is None or not VERBS[verb].recipe:
        return parser.parse_args(words), []
    plain, overrides = _take_overrides(parser, verb, words)
    return parser.parse_args(plain), overrides


_OWN = (*SHORTCUTS, "json", "dry-run", "resume", "help", "version", "split", "formats")
_LISTS = (
    "teachers",
    "training.views",
    "training.class_weights",
    "training.optimizer.betas",
    "training.schedule.milestones",
    "compare.temperatures",
    "compare.weights",
    "input.mean",
    "input.std",
)


def _take_overrides(
    parser: argparse.ArgumentParser, verb: str, words: Sequence[str]
) -> tuple[list[str], Overrides]:
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
        _check_key(parser, verb, path)
        values = [value] if equals else []
        while queue and not queue[0].startswith("--") and (not values or path in _LISTS):
            values.append(queue.pop(0))
        overrides.append((path, _value(parser, path, values)))
    return plain, overrides


def _value(parser: argparse.ArgumentParser, path: str, values: list[str]) -> Any:
    from limbeck.recipe.override import value_of

    if not values:
        parser.error(f"--{path} needs a value")
    if len(values) == 1:
        value = value_of(values[0])
        return [value] if path in _LISTS and not isinstance(value, list) else value
    return [value_of(value) for value in values]


def _check_key(parser: argparse.ArgumentParser, verb: str, path: str) -> None:
    from limbeck.recipe.spec import Recipe

    known = [*Recipe.model_fields, "teacher", "model"]
    key = path.partition(".")[0]
    if key not in known:
        hint = nearest(key, [*known, *_OWN])
        parser.error(f"unknown flag --{path}{hint}; see `limbeck {verb} --help`")
