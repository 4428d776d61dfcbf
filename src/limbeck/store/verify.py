"""Whether a store still says what it should: bytes, replayed views, and the teacher itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from limbeck.data.base import Record, Split
from limbeck.data.fingerprint import batch_hashes
from limbeck.data.ops import to_float
from limbeck.data.views import Views
from limbeck.errors import InputError
from limbeck.store.manifest import DTYPES, first_difference
from limbeck.store.reader import TeacherStore

_TOLERANCE = 0.01
"""Largest difference of a row's logits over their size that another device or kernel explains."""

_SMALL = 1 << 26
"""Bytes of a store whose checksums are looked at before every training."""


def check_bytes(store: TeacherStore, *, small_only: bool = False) -> None:
    """Compare every file with its checksum.

    Args:
        store: the store.
        small_only: leave large stores alone (more than 64 MiB).

    Raises:
        InputError: a file that has changed; it is named.
    """
    size = sum(path.stat().st_size for path in store.path.glob("*.safetensors"))
    if small_only and size > _SMALL:
        return
    damaged = store.damaged()
    if damaged:
        raise InputError(
            f"the store {store.path} is damaged: {', '.join(damaged)} is not what was written; "
            f"copy it again, or label again"
        )


def check_definition(store: TeacherStore, part: str, views: Views) -> None:
    """Compare the views of a training with those that were labelled.

    Raises:
        InputError: another augmentation, seed, source of partners or version; says which.
    """
    stored = store.manifest.replay.definitions
    theirs = stored.get(part) or next(iter(stored.values()), None)
    ours = views.definition()
    if theirs is None:
        raise InputError(
            f"the store {store.path} holds clean samples only, and the training augments them; "
            f"label again with --views N and the same --training.views"
        )
    # Through JSON tuples have become lists; compare what both look like there.
    if _plain(ours) != theirs:
        said = first_difference("views", _plain(ours), theirs)
        raise InputError(
            f"the store {store.path} was labelled under another augmentation: {said}; take the "
            f"store's views by leaving training.views away, or label again"
        )


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def check_views(
    store: TeacherStore, splits: Mapping[str, Split], views: Mapping[str, Views]
) -> int:
    """Replay the stored probes that the data holds, and compare the inputs.

    Args:
        store: the store.
        splits: the data, under the store's ids.
        views: the augmentation of each split that a training replays.

    Returns:
        How many inputs were compared.

    Raises:
        InputError: a replayed input differs from what the teacher saw.
    """
    probes = store.probes()
    compared = 0
    for part, split in splits.items():
        # Of the split only what the probes name: it may have millions of samples.
        rows = torch.isin(split.ids, probes["id"]).nonzero().squeeze(1)
        place = dict(zip(split.ids[rows].tolist(), rows.tolist(), strict=True))
        for number, ident in enumerate(probes["id"].tolist()):
            view = int(probes["view"][number])
            if ident not in place or view == 0:
                continue
            clean = split.fetch(torch.tensor([place[ident]]))
            if batch_hashes(clean["x"])[0] != probes["hash"][number]:
                continue
            seen = views[part](clean, view)["x"][0].cpu()
            compared += 1
            if not _close(to_float(seen), probes["x"][number]):
                raise InputError(
                    f"view {view} of sample {ident} is not what the teacher of the store "
                    f"{store.path} saw: the augmentation has changed since; label again"
                )
    return compared


def _close(ours: Tensor, theirs: Tensor) -> bool:
    """Equal up to what another device or version rounds differently."""
    gap = (ours.double() - theirs.double()).abs()
    scale = theirs.double().abs().max().clamp_min(1e-6)
    return bool(gap.mean() <= 1e-3 * scale)


@dataclass(frozen=True)
class Rerun:
    """What came of running the teacher again.

    Attributes:
        rows: outputs that were compared.
        largest: the largest difference of a row's logits, over their size.
        wrong: ids of samples that differ by more than rounding explains.
    """

    rows: int
    largest: float
    wrong: list[int]


def rerun(store: TeacherStore, answer: Callable[[Record], Record], seen: Record) -> Rerun:
    """Run the teacher again and compare what it says with what is stored.

    Args:
        store: the store.
        answer: the teacher: a batch to `logits`.
        seen: inputs `x` as the teacher sees them, with `id`, content `hash` and `view` of each,
            such as `store.probes()`.
    """
    pairs = zip(seen["hash"], seen["view"], strict=True)
    found = torch.stack([store.find(digest[None], int(view) + 1)[0] for digest, view in pairs])
    held = found >= 0
    if not held.any():
        return Rerun(0, 0.0, [])
    with torch.inference_mode():
        fresh = answer({"x": seen["x"][held], "index": seen["id"][held]})["logits"].float().cpu()
    kept = store.read(found[held], seen["view"][held])
    gap = _gap(kept, fresh)
    rounding = _TOLERANCE + 2 * torch.finfo(DTYPES[store.manifest.dtype]).eps
    return Rerun(int(held.sum()), float(gap.max()), seen["id"][held][gap > rounding].tolist())


def _gap(kept: Record, fresh: Tensor) -> Tensor:
    """Largest difference of a row's logits over their size (at least 1)."""
    ours, theirs = kept.get("logits"), fresh
    if ours is None:
        ours, theirs = kept["values"], fresh.gather(-1, kept["indices"].long())
    size = theirs.abs().amax(-1).clamp_min(1)
    return (ours.float() - theirs).abs().amax(-1) / size


def refuse_wrong(store: TeacherStore, found: Rerun) -> None:
    """Raise where the teacher now says something else.

    Raises:
        InputError: with the ids of the samples.
    """
    if found.wrong:
        some = ", ".join(map(str, found.wrong[:8]))
        raise InputError(
            f"the store {store.path} does not hold what its teacher says: {len(found.wrong)} of "
            f"{found.rows} outputs that were run again differ (samples {some}, by up to "
            f"{found.largest:.0%}); label again"
        )
