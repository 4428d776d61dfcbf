"""Reading the card that a run or an export leaves. Torch is not imported here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck.errors import InputError

CARD = "card.json"


@dataclass(frozen=True)
class Card:
    """What a card says about its student.

    Attributes:
        folder: where the card lies.
        source: `SOURCE:NAME[?...]` that builds the student, None: it was built in Python.
        shape: of one sample.
        classes: class names in label order; empty where the target is no class.
        content: the whole card.
    """

    folder: Path
    source: str | None
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    content: dict[str, Any]


def read_card(path: str | Path) -> Card:
    """The card in the folder `path`, or the card file `path` itself.

    Raises:
        InputError: no card there, or one that lacks the model, the input or the classes.
    """
    file = Path(path) / CARD if Path(path).is_dir() else Path(path)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        source = content["model"]["source"]
        shape = tuple(int(size) for size in content["input"]["shape"])
        classes = tuple(str(name) for name in content["classes"])
    except FileNotFoundError as error:
        raise InputError(f"there is no card at {str(file)!r}: name a finished run") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"cannot read the card {str(file)!r} ({reason})") from error
    if not (source is None or isinstance(source, str)):
        raise InputError(f"cannot read the card {str(file)!r}: its model.source is {source!r}")
    return Card(file.parent, source, shape, classes, content)
