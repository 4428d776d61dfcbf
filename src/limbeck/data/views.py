"""Views: augmentation that can be replayed, a pure function of (sample id, view number, seed).

The same sample, view and seed give the same pixels in every batch, on every run, so what a teacher
said about a view stays true when the view is made again later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from pydantic import ValidationError
from torch import Tensor

from limbeck.data.base import Record, Split
from limbeck.data.ops import OPS, Crop, Flip, FlipCrop, Mix, Op, to_float
from limbeck.data.plans import Plans
from limbeck.data.random import derive, uniforms
from limbeck.errors import InputError, nearest

__all__ = ["VERSION", "Views", "parse_views", "to_float"]

VERSION = 1
"""Raised whenever the same definition would give other pixels; part of `Views.definition`."""


class Views:
    """Augmentations, applied in turn to whole batches on the batch's own device.

    Images stay uint8 for as long as operations only move pixels; what computes with values
    (`color`, `mixup`) turns them into float32 in [0, 1], as `to_float` does. Normalisation by mean
    and standard deviation is the business of each model's input adapter, which accepts both.
    A `flip` and a `crop` next to one another are done in one pass, the flip first.

    Args:
        ops: in the order in which they are applied, see `parse_views`.
        seed: of all draws.
        source: the samples that `mixup` and `cutmix` draw partners from, normally the split that
            the batches come from, on the same device.
    """

    def __init__(self, ops: Sequence[Op], *, seed: int, source: Split | None = None) -> None:
        self.ops = _fuse(ops)
        self.seed = seed
        self.source = source
        self._plans = Plans(source)
        if source is None and any(isinstance(op, Mix) for op in ops):
            raise InputError("mixup and cutmix need a source of partners: give `source`, a Split")

    def __call__(self, record: Record, view: int) -> Record:
        """Replay one view of a batch.

        Args:
            record: `x` of shape (N, ...) and `index` of shape (N,), perhaps `y`.
            view: number of the view; 0 is the clean sample.

        Returns:
            A record with the augmented `x`. After `mixup` or `cutmix` also `mix`, the share of
            the sample itself (float32, (N,)), and `y_mix`, the partner's label, where there are
            labels: the supervised loss is mix CE(y) + (1 - mix) CE(y_mix).
        """
        if view == 0 or not self.ops:
            return record
        result = dict(record)
        for position, op in enumerate(self.ops):
            if isinstance(op, Mix):
                self._mix(op, result, view, position)
            else:
                self._apply(op, result, view, position)
        return result

    def _apply(self, op: Op, record: Record, view: int, position: int) -> None:
        plan = self._plans(position, op, record, self._seed(view, position))
        record["x"] = op.apply(record["x"], plan)

    def _mix(self, op: Mix, record: Record, view: int, position: int) -> None:
        """Mix `record` with partners seen through the same operations up to here."""
        seed = self._seed(view, position)
        partner = self._partners(record["index"], seed)
        for before, earlier in enumerate(self.ops[:position]):
            self._apply(earlier, partner, view, before)
        plan = self._plans(position, op, record, seed)
        record["x"], record["mix"] = op.mix(record["x"], partner["x"], plan)
        if "y" in record and "y" in partner:
            record["y_mix"] = partner["y"]

    def _partners(self, index: Tensor, seed: int) -> Record:
        """One sample of the source for every id, all equally likely."""
        source = cast(Split, self.source)  # seen to when the views were made
        coarse, fine = uniforms(index, 2, seed=derive(seed, "partner")).double().unbind(1)
        rows = ((coarse + fine * 2.0**-24) * len(source)).long()
        return source.fetch(rows)

    def _seed(self, view: int, position: int) -> int:
        return derive(self.seed, "view", view, position)

    def definition(self) -> dict[str, Any]:
        """What makes these views, JSON-ready: equal definitions replay equal views."""
        ops = [{"name": op.name, **op.model_dump(mode="json")} for op in self.ops]
        mixes = any(isinstance(op, Mix) for op in self.ops)
        source = self.source.fingerprint() if self.source is not None and mixes else None
        return {"version": VERSION, "seed": self.seed, "ops": ops, "source": source}


def _fuse(ops: Sequence[Op]) -> tuple[Op, ...]:
    """Neighbouring flip and crop, in either order (windows are as likely mirrored), become one."""
    fused: list[Op] = []
    for op in ops:
        match fused[-1:], op:
            case ([Flip() as flip], Crop() as crop) | ([Crop() as crop], Flip() as flip):
                fused[-1] = FlipCrop(flip=flip, crop=crop)
            case _:
                fused.append(op)
    return tuple(fused)


def parse_views(
    specs: Sequence[str | Mapping[str, Mapping[str, Any]]],
    *,
    kind: str | None = None,
    seed: int = 0,
    source: Split | None = None,
) -> Views:
    """Views from the names of their augmentations in a recipe.

    Args:
        specs: each a name, or `{name: {option: value}}`: `["flip", {"crop": {"padding": 4}}]`.
        kind: of the data they are for (`Data.kind`); None skips the check that they fit.
        seed: see `Views`.
        source: see `Views`.

    Raises:
        InputError: unknown name or option, value out of range, or unfit for the data.
    """
    ops = [
        _parse(name, options)
        for spec in specs
        for name, options in ({spec: {}} if isinstance(spec, str) else spec).items()
    ]
    mixers = [op.name for op in ops if isinstance(op, Mix)]
    if len(mixers) > 1:
        raise InputError(f"views mix samples twice ({', '.join(mixers)}); keep one of them")
    sample = None if source is None else source.fetch(torch.zeros(1, dtype=torch.int64))["x"]
    for op in ops:
        _check_fit(op, kind, sample)
    return Views(ops, seed=seed, source=source)


def _parse(name: str, options: Mapping[str, Any] | None) -> Op:
    if name not in OPS:
        known = ", ".join(OPS)
        raise InputError(f"unknown view {name!r}{nearest(name, OPS)} (known views: {known})")
    try:
        return OPS[name](**(options or {}))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join([name, *map(str, first["loc"])])
        reason = first["msg"].removeprefix("Value error, ")
        given = f", not {first['input']!r}" if first["loc"] else ""
        raise InputError(f"view {place}: {reason}{given}") from None


def _check_fit(op: Op, kind: str | None, sample: Tensor | None) -> None:
    if kind is not None and kind not in op.kinds:
        fitting = ", ".join(name for name, other in OPS.items() if kind in other.kinds)
        raise InputError(f"view {op.name!r} does not fit data of kind {kind!r}: take {fitting}")
    if sample is None:
        return
    if sample.dtype == torch.int64:
        raise InputError(f"view {op.name!r} does not fit token ids: leave the views empty")
    if isinstance(op, Crop) and op.mode == "reflect" and op.padding >= min(sample.shape[2:]):
        raise InputError(
            f"view crop.padding: {op.padding} pixels cannot be reflected in images of "
            f"{sample.shape[2]} x {sample.shape[3]}; choose fewer, or mode: zeros"
        )
