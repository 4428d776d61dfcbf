"""The verbs: their own arguments, an example of each, and what of a recipe they read."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


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


def _none(parser: argparse.ArgumentParser) -> None:
    """No arguments of its own."""


def _resume(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--resume", metavar="RUN", help="go on with the run in this folder")


def _training(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", nargs="?", help="a recipe file (.yaml)")
    _resume(parser)


def _label(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", nargs="?", help="a recipe file (.yaml)")
    parser.add_argument("--resume", metavar="STORE", help="go on with the labelling in this folder")
    parser.add_argument("--from", dest="outputs", metavar="FILE", help="take outputs from a file")
    parser.add_argument("--views", type=int, help="views of a sample, the first is the clean one")
    parser.add_argument("--top-k", type=int, help="logits kept of each row; all where not said")
    parser.add_argument("--dtype", choices=("fp16", "bf16", "fp32"), help="how they are kept")
    parser.add_argument(
        "--features",
        choices=("pooled", "full"),
        help="how tapped features are kept (--teachers.0.taps PATH)",
    )
    parser.add_argument("--batch", type=int, help="samples in a forward pass of the teacher")
    parser.add_argument("--splits", nargs="+", metavar="SPLIT", help="of train, pool, val, test")
    parser.add_argument(
        "--skip-nonfinite", action="store_true", help="leave out samples with NaN outputs"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the recipe, and stop")


def _store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=("info", "verify"), help="look, or check it against itself")
    parser.add_argument("path", metavar="STORE", help="the folder of a store")
    parser.add_argument("--rows", type=int, default=64, help="outputs to run again")


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
    parser.add_argument("--workers", type=int, default=2, help="trainings side by side")
    parser.add_argument("--share", type=float, default=1.0, help="part of the work, for a look")
    parser.add_argument("--out", help="folder for runs and evidence.json")


def _diagnose(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", nargs="?", help="a recipe file (.yaml)")
    parser.add_argument("--samples", type=int, default=384, help="that the kernel is computed of")
    parser.add_argument("--memory", type=float, default=2.0, help="GiB for gradients")
    parser.add_argument(
        "--skip", nargs="+", default=[], metavar="STAGE", help="of difficulty, size, start"
    )


def _shrink(parser: argparse.ArgumentParser) -> None:
    _training(parser)
    parser.add_argument("--reduction", type=float, help="parameters, teacher's over student's")
    parser.add_argument("--widths", type=int, nargs="+", help="of hidden layers: look for none")
    parser.add_argument("--size-epochs", type=int, default=30, help="of the spectral training")
    parser.add_argument(
        "--skip", nargs="+", default=[], metavar="STAGE", help="of start, diagnose, export"
    )
    parser.add_argument(
        "--formats", nargs="+", default=["safetensors"], metavar="FORMAT", help="of the export"
    )


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
    "label": Verb(
        "run a teacher once over data and store its outputs",
        "limbeck label --teacher runs/teacher --data fashion-mnist --views 4 "
        "--training.views flip crop --top-k 10 --out stores/fashion",
        _label,
        reads=(
            *("task", "teachers", "data", "out"),
            *("training.views", "training.view_count"),
            *("training.device", "training.precision", "training.workers"),
        ),
    ),
    "store": Verb(
        "what a store holds, and whether it still holds it",
        "limbeck store verify stores/fashion",
        _store,
        recipe=False,
    ),
    "compare": Verb(
        "arms by seeds, paired, beside no teacher and tuned KD",
        "limbeck compare --student limbeck:mlp?widths=8 --teacher runs/teacher --data digits "
        "--compare.seeds 5 --compare.arms.dkd.method dkd",
        _training,
    ),
    "diagnose": Verb(
        "before training: is the teacher read rightly, will it help, how, how wide",
        "limbeck diagnose --student limbeck:convnet?widths=8,16 --teacher runs/teacher "
        "--data fashion-mnist",
        _diagnose,
    ),
    "shrink": Verb(
        "find the width, start from the teacher, distil, export",
        "limbeck shrink --teacher runs/teacher --data fashion-mnist --reduction 8 --out runs/small",
        _shrink,
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
