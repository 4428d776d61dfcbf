"""The verbs and their flags. Whatever is written with a dot overrides the recipe."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from limbeck import __version__
from limbeck.errors import InputError, nearest

Overrides = list[tuple[str, Any]]
"""Dotted path and value, in the order in which they were typed."""


@dataclass(frozen=True)
class Verb:
    """One verb of the command.

    Attributes:
        summary: one line.
        example: shown under the help.
        arguments: adds its own arguments.
        recipe: whether keys of a recipe are flags of it.
        reads: those keys, where it does not read all of them.
    """

    summary: str
    example: str
    arguments: Callable[[argparse.ArgumentParser], Any]
    recipe: bool = True
    reads: tuple[str, ...] = ()

    def takes(self, path: str) -> bool:
        """Whether the dotted key `path` of a recipe is a flag of this verb."""
        within = (path == key or path.startswith(f"{key}.") for key in self.reads)
        return self.recipe and (not self.reads or any(within))

    @property
    def shortcuts(self) -> dict[str, str]:
        """Its undotted flags, and the keys that they set."""
        return {flag: path for flag, path in SHORTCUTS.items() if self.takes(path)}


class Parser(argparse.ArgumentParser):
    """Complains as everything else does: in one sentence, raised and not printed."""

    def error(self, message: str) -> NoReturn:  # noqa: D102
        raise InputError(f"{message} (see `{self.prog} --help`)")


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


def _doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--schema", action="store_true", help="print the JSON schema of recipes, for editors"
    )


def _taps(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="MODEL, for example limbeck:resnet20")
    parser.add_argument("--shape", default="3,32,32", help="of one sample, such as 3,32,32")
    parser.add_argument("--classes", type=int, default=10)


def _reproduce(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="what; without it, a list")
    parser.add_argument("--seeds", type=int, help="trainings of each arm")
    parser.add_argument("--full", action="store_true", help="the larger setting")
    parser.add_argument("--scale", default="cpu", choices=("cpu", "gpu"), help="where it runs")
    parser.add_argument("--share", type=float, default=1.0, help="part of the work, for a look")
    parser.add_argument("--out", help="folder for runs and evidence.json")


VERBS: dict[str, Verb] = {
    "quickstart": Verb(
        "the whole tour on built-in data: teacher, student, proof",
        "limbeck quickstart --out runs/quickstart",
        _resume,
        reads=("seed", "out", "training.device", "training.precision", "training.workers"),
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
        reads=("student", "data", "training.metric", "training.device", "training.workers"),
    ),
    "predict": Verb(
        "labels and probabilities for new samples",
        "limbeck predict runs/student new.csv --out labels.csv",
        _predict,
        reads=("student", "out", "training.device"),
    ),
    "export": Verb(
        "safetensors, torch.export, ONNX and int8, each checked",
        "limbeck export runs/student --formats onnx int8 --out shipped",
        _export,
        reads=("student", "data", "out", "training.workers"),
    ),
    "report": Verb(
        "write the HTML report of a run or a comparison again",
        "limbeck report runs/student",
        _folder("the folder of a run or a comparison"),
        recipe=False,
    ),
    "reproduce": Verb(
        "measure the claims of a paper again",
        "limbeck reproduce factor-transfer --out runs/factor-transfer",
        _reproduce,
        recipe=False,
    ),
    "methods": Verb("list every method", "limbeck methods", _none, recipe=False),
    "taps": Verb("list where a model can be tapped", "limbeck taps limbeck:resnet20", _taps, False),
    "doctor": Verb("what is installed, what each extra brings", "limbeck doctor", _doctor, False),
}

SHORTCUTS = {
    "device": "training.device",
    "precision": "training.precision",
    "workers": "training.workers",
    "seed": "seed",
    "out": "out",
}


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
    plain, overrides = _take_overrides(name, words)
    options, strange = parser.parse_known_args(plain)
    if strange:
        raise InputError(f"{name} does not take {' '.join(strange)} (see `limbeck {name} --help`)")
    return options, overrides


_OWN = (
    *SHORTCUTS,
    "json",
    "dry-run",
    "resume",
    "help",
    "split",
    "formats",
    "shape",
    "classes",
    "schema",
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

    known = [*Recipe.model_fields, "teacher", "model"] if VERBS[name].recipe else []
    key, dot, rest = path.partition(".")
    if key not in known:
        hint = nearest(key, [*known, *_OWN])
        raise InputError(f"unknown flag --{path}{hint} (see `limbeck {name} --help`)")
    if not VERBS[name].takes(f"{SYNONYMS.get(key, key)}{dot}{rest}"):
        raise InputError(f"{name} does not read --{path} (see `limbeck {name} --help`)")
