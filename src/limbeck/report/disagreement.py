"""Where student and teacher disagree: counts, and the samples worth looking at."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from limbeck.report.reading import Array, Run
from limbeck.report.scores import probabilities

Images = Callable[[list[int]], Array]
"""Samples of the judged split by position, (N, C, H, W) in [0, 1]."""

Texts = Callable[[list[int]], list[str]]
"""The same samples in words: a text, or the values of a table's row."""

_SHOWN = 8  # samples of a group
_PIXELS = 96  # edge of a shown image at most


@dataclass(frozen=True)
class Sample:
    """One sample with what both say of it; `image` is a data URI, `text` its content in words."""

    position: int
    label: str
    student: str
    student_confidence: float
    teacher: str
    teacher_confidence: float
    image: str | None
    text: str | None


@dataclass(frozen=True)
class Group:
    """Samples on which student and teacher disagree in one way."""

    title: str
    count: int
    samples: tuple[Sample, ...]


def disagreements(
    run: Run, classes: Sequence[str], images: Images | None, texts: Texts | None
) -> list[Group]:
    """The ways in which student and teacher disagree; empty without teacher or labels.

    Of each way the samples that the student is surest about are shown.

    Args:
        run: a run with a teacher.
        classes: class names in label order.
        images: gives the images of samples.
        texts: gives the samples in words.
    """
    ours, theirs, labels = run.logits(), run.logits("teacher"), run.labels
    if ours is None or theirs is None or labels is None:
        return []
    student, teacher = ours.argmax(-1), theirs.argmax(-1)
    apart = student != teacher
    ways = {
        "The teacher is right": apart & (teacher == labels),
        "The student is right": apart & (student == labels),
        "Both are wrong": apart & (teacher != labels) & (student != labels),
    }
    chances = probabilities(ours), probabilities(theirs)
    groups = []
    for title, rows in ways.items():
        found = np.flatnonzero(rows)
        if len(found):
            chosen = found[np.argsort(-chances[0][found].max(-1), kind="stable")][:_SHOWN]
            samples = _samples(chosen.tolist(), labels, chances, classes, images, texts)
            groups.append(Group(title, len(found), samples))
    return groups


def _samples(
    rows: list[int],
    labels: Array,
    chances: tuple[Array, Array],
    classes: Sequence[str],
    images: Images | None,
    texts: Texts | None,
) -> tuple[Sample, ...]:
    pictures = [data_uri(image) for image in images(rows)] if images else [None] * len(rows)
    contents = texts(rows) if texts else [None] * len(rows)

    said = [_said(chances, row, classes) for row in rows]
    named = [_name(classes, int(labels[row])) for row in rows]
    together = zip(rows, named, said, pictures, contents, strict=True)
    return tuple(
        Sample(row, label, *answers, image, text) for row, label, answers, image, text in together
    )


def _said(
    chances: tuple[Array, Array], row: int, classes: Sequence[str]
) -> tuple[str, float, str, float]:
    """Class and confidence, of the student and of the teacher."""
    ours, theirs = chances[0][row], chances[1][row]
    student, teacher = _name(classes, int(ours.argmax())), _name(classes, int(theirs.argmax()))
    return student, float(ours.max()), teacher, float(theirs.max())


def _name(classes: Sequence[str], number: int) -> str:
    return str(classes[number]) if number < len(classes) else str(number)


def data_uri(image: Any) -> str:
    """An image (C, H, W) in [0, 1] as an inline PNG; gray unless it has three channels."""
    from PIL import Image

    pixels = (np.clip(np.asarray(image, dtype=float), 0, 1) * 255).round().astype(np.uint8)
    picture = Image.fromarray(pixels.transpose(1, 2, 0) if len(pixels) == 3 else pixels[0])
    picture.thumbnail((_PIXELS, _PIXELS))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
