"""Who goes where: stratified splits as pure functions of (labels, options, seed)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from limbeck.data.random import generator
from limbeck.errors import InputError
from limbeck.recipe.spec import DataSpec

UNLABELED = -1
"""The label of a training row that has none; such rows join the pool."""


@dataclass(frozen=True)
class Places:
    """Where the samples of a split stand: positions `rows`, sorted, in the source's part `part`."""

    part: str
    rows: Tensor


def assign(
    labels: Mapping[str, Tensor], spec: DataSpec, *, seed: int, classes: Sequence[str]
) -> dict[str, Places]:
    """Split a source into `train`, `val`, `test` and perhaps `pool`.

    The source's own parts are kept. Where it has no `test`, that is held out of its `train`
    first; then `limit` cuts; then `val` is held out; then `labels` turns samples into pool.

    Args:
        labels: label of every sample by part, `train` and perhaps `val` and `test`; in `train`
            `UNLABELED` marks samples for the pool.
        spec: its `val`, `test`, `limit`, `labels`.
        seed: of the random choices.
        classes: class names, for messages.

    Raises:
        InputError: a class has too few samples, or `limit` or `labels` is too small.
    """
    y = labels["train"]
    known = y != UNLABELED
    rows, pool = known.nonzero().squeeze(1), (~known).nonzero().squeeze(1)
    missing = [part for part in ("test", "val") if part not in labels]
    _check_sizes(y[rows], classes, missing)
    places = {part: _whole(part, labels[part]) for part in ("val", "test") if part in labels}
    if "test" in missing:
        rows, held = _hold_out(y, rows, spec.test, leave=len(missing), seed=seed, part="test")
        places["test"] = Places("train", held)
    if spec.limit is not None and spec.limit < len(rows):
        least = 2 if "val" in missing else 1
        _check_total("limit", spec.limit, least, classes)
        rows = _choose(y, rows, spec.limit, least=least, seed=seed, name="limit")
    if "val" in missing:
        rows, held = _hold_out(y, rows, spec.val, leave=1, seed=seed, part="val")
        places["val"] = Places("train", held)
    if spec.labels is not None and spec.labels < len(rows):
        _check_total("labels", spec.labels, 1, classes)
        kept = _choose(y, rows, spec.labels, least=1, seed=seed, name="labels")
        pool = torch.cat([pool, rows[~torch.isin(rows, kept)]]).sort().values
        rows = kept
    places["train"] = Places("train", rows)
    if len(pool):
        places["pool"] = Places("train", pool)
    return {name: places[name] for name in ("train", "val", "test", "pool") if name in places}


def _whole(part: str, y: Tensor) -> Places:
    return Places(part, torch.arange(len(y)))


def _hold_out(
    y: Tensor, rows: Tensor, share: float, *, leave: int, seed: int, part: str
) -> tuple[Tensor, Tensor]:
    """Split `rows` into what stays and what is held out: at least one a class, `leave` stay."""
    classes = len(torch.unique(y[rows]))
    total = max(round(share * len(rows)), classes)
    total = min(total, len(rows) - leave * classes)
    held = _choose(y, rows, total, least=1, leave=leave, seed=seed, name=part)
    return rows[~torch.isin(rows, held)], held


def _choose(
    y: Tensor, rows: Tensor, total: int, *, least: int, seed: int, name: str, leave: int = 0
) -> Tensor:
    """`total` of `rows`, each class in proportion, sorted."""
    sizes = torch.unique(y[rows], return_counts=True)[1]
    counts = proportional(sizes.tolist(), total, least=least, leave=leave)
    stream = generator(seed, "split", name)
    members = torch.split(rows[y[rows].argsort(stable=True)], sizes.tolist())
    chosen = [
        some[torch.randperm(len(some), generator=stream)[:count]]
        for some, count in zip(members, counts, strict=True)
    ]
    return torch.cat(chosen).sort().values


def proportional(sizes: Sequence[int], total: int, *, least: int = 0, leave: int = 0) -> list[int]:
    """Share `total` out in proportion to `sizes`, by largest remainder.

    Args:
        sizes: what there is of each class.
        total: what is wanted of all together.
        least: taken of every class at least.
        leave: left of every class at least.

    Returns:
        Counts that add up to `total`, as near to proportion as the bounds allow.
    """
    ideal = [size * total / sum(sizes) for size in sizes]
    room = [size - leave for size in sizes]
    counts = [min(max(int(want), least), most) for want, most in zip(ideal, room, strict=True)]
    while sum(counts) != total:
        step = 1 if sum(counts) < total else -1
        open_ = [
            place
            for place, count in enumerate(counts)
            if (count < room[place] if step > 0 else count > least)
        ]
        if not open_:
            raise ValueError(f"{total} of {sum(sizes)} samples do not fit the bounds")
        counts[max(open_, key=lambda place: step * (ideal[place] - counts[place]))] += step
    return counts


def _check_sizes(y: Tensor, classes: Sequence[str], missing: Sequence[str]) -> None:
    """Every class must reach every part that is held out, and stay in the training."""
    least = 1 + len(missing)
    values, sizes = torch.unique(y, return_counts=True)
    for value, size in zip(values.tolist(), sizes.tolist(), strict=True):
        if size < least:
            raise InputError(
                f"class {classes[value]!r} has {size} training sample{'s' * (size != 1)}, but "
                f"holding out {' and '.join(missing)} needs at least {least} of every class; add "
                f"samples, leave the class out, or bring a {' and a '.join(missing)} part"
            )


def _check_total(option: str, total: int, least: int, classes: Sequence[str]) -> None:
    if total < least * len(classes):
        raise InputError(
            f"data.{option} is {total}, but {len(classes)} classes need at least "
            f"{least * len(classes)} samples ({least} of each)"
        )
