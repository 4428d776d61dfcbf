"""The manifest of a store: what was labelled, by whom, in which views, and where it lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, ValidationError

from limbeck.errors import InputError
from limbeck.recipe.folder import read_json, write_json
from limbeck.recipe.spec import Spec, View
from limbeck.recipe.validation import explain

MANIFEST, PLAN, INDEX, PROBES, PIECES = (
    "manifest.json",
    "plan.json",
    "index.safetensors",
    "probes.safetensors",
    "pieces",
)

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
"""How outputs are kept, by the word for it."""

Dtype = Literal["fp16", "bf16", "fp32"]


class Author(Spec):
    """Whose outputs they are.

    Attributes:
        name: what the user called the teacher.
        model: the reference that builds it again, None where no name does.
        weights: digest of its weights; empty for outputs from elsewhere.
        input: its input adapter: mean, std, size.
        classes: what each of its outputs stands for, where the user said so.
        parameters: how many it has.
    """

    name: str
    model: str | None = None
    weights: str = ""
    input: dict[str, Any] = Field({})
    classes: list[str | int] | None = None
    parameters: int = 0


class Replay(Spec):
    """The views of every sample; view 0 is the clean one.

    Attributes:
        count: how many.
        ops: the augmentations as a recipe names them; empty where there is the clean view only.
        definitions: `Views.definition()` by part.
    """

    count: int = Field(1, ge=1)
    ops: list[View] = Field([])
    definitions: dict[str, dict[str, Any]] = Field({})


class Part(Spec):
    """Samples that were labelled together.

    Attributes:
        name: of the split: `train`, `pool`, `val` or `test`.
        samples: how many.
        views: how many of each.
        digest: `Split.fingerprint()`, so that a resumed labelling meets the same samples.
    """

    name: str
    samples: int = Field(ge=0)
    views: int = Field(ge=1)
    digest: str


class Shard(Spec):
    """One file of rows.

    Attributes:
        file: its name in the store's folder.
        part: of which split.
        rows: how many.
        views: of each row.
        sha256: of the whole file.
    """

    file: str
    part: str
    rows: int = Field(ge=0)
    views: int = Field(ge=1)
    sha256: str


class Manifest(Spec):
    """What a store says of itself. While it is being written it is the plan, without shards.

    Attributes:
        format: version of the format.
        limbeck: version that wrote it.
        author: whose outputs.
        classes: class names in the order of the logits.
        top_k: logits kept of each row, None: all.
        dtype: how they are kept.
        features: shape of each tapped feature, by path.
        pooled: whether features are means over their positions.
        replay: the views.
        parts: what was to be labelled.
        batch: samples in a forward pass of the teacher.
        shards: the files, in the order of the rows.
        index: SHA-256 of the file that finds rows by content.
        probes: SHA-256 of the file with some inputs as the teacher saw them.
        skipped: content hashes of samples that the teacher had no finite output for.
    """

    format: Literal[1] = 1
    limbeck: str
    author: Author
    classes: list[str]
    top_k: int | None = Field(None, ge=1)
    dtype: Dtype = "fp16"
    features: dict[str, list[int]] = Field({})
    pooled: bool = True
    replay: Replay = Replay()
    parts: list[Part] = Field([])
    batch: int = Field(64, ge=1)
    shards: list[Shard] = Field([])
    index: str = ""
    probes: str = ""
    skipped: list[int] = Field([])


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a finished store.

    Raises:
        InputError: no store there, one that is not finished, or a manifest that cannot be read.
    """
    if not (folder / MANIFEST).is_file():
        if (folder / PLAN).is_file():
            raise InputError(
                f"the store {folder} is incomplete: its labelling was interrupted; go on with it "
                f"by `limbeck label --resume {folder}`"
            )
        raise InputError(f"there is no store at {folder}; make one with `limbeck label`")
    return _read(folder / MANIFEST)


def read_plan(folder: Path) -> Manifest | None:
    """What is being labelled in `folder`, None where nothing is."""
    return _read(folder / PLAN) if (folder / PLAN).is_file() else None


def _read(path: Path) -> Manifest:
    content = read_json(path)
    if isinstance(content, dict) and content.get("format", 1) != 1:
        raise InputError(
            f"{path} has format {content['format']}, this limbeck reads 1; upgrade limbeck, or "
            f"label again"
        )
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{path} is damaged: {explain(error)}") from None


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write a manifest or a plan, whole or not at all."""
    write_json(path, manifest.model_dump(mode="json"))


def difference(ours: Manifest, theirs: Manifest) -> str | None:
    """The first key in which two plans differ, with both values; None where they are one."""
    skip = {"shards", "index", "probes", "skipped", "limbeck"}
    mine, other = (plan.model_dump(mode="json", exclude=skip) for plan in (ours, theirs))
    return None if mine == other else first_difference("", mine, other).removeprefix(".")


def first_difference(path: str, ours: Any, theirs: Any) -> str:
    """Where two nested values part, in words."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in [*ours, *(key for key in theirs if key not in ours)]:
            if ours.get(key) != theirs.get(key):
                return first_difference(f"{path}.{key}", ours.get(key), theirs.get(key))
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for place, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            if mine != other:
                return first_difference(f"{path}[{place}]", mine, other)
    return f"{path} is {ours!r}, there {theirs!r}"
