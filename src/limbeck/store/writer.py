"""Labelling: the teacher's outputs are written piece by piece, then sealed into shards.

A piece holds whole batches and stands under its name only when it is complete, so whatever is
interrupted goes on where its pieces end. Batches are cut from a fixed grid and shards by their
size, so the sealed store does not show how often, or by how many processes, it was written.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from limbeck.data.base import Record, Split
from limbeck.data.fingerprint import batch_hashes
from limbeck.data.ops import to_float
from limbeck.data.views import Views
from limbeck.errors import InputError
from limbeck.store.manifest import INDEX, MANIFEST, PIECES, PLAN, PROBES, Manifest, Part, Shard
from limbeck.store.manifest import write_manifest as write
from limbeck.store.packing import pack
from limbeck.store.shards import (
    Form,
    ShardWriter,
    file_sha256,
    form_of,
    full_disk,
    joined,
    length,
    read_shard,
    row_bytes,
    rows_of,
    write_rows,
)

PIECE_SECONDS, PIECE_BYTES = 5.0, 1 << 26
"""A piece is written when either is reached: what a kill can cost, and what memory holds."""

SHARD_BYTES = 1 << 32
"""Largest shard, unless a single row is larger: 64 random rows of one file are read fastest."""

Span = tuple[int, int]


@dataclass
class Labelling:
    """One labelling: what to run on what, and where it goes.

    Attributes:
        folder: of the store.
        plan: what is labelled.
        splits: the samples by part, on the device of the teacher.
        views: their augmentation by part, empty where the clean view is the only one.
        answer: the teacher: a part's name and a batch to `logits` and the tapped features.
        on_rows: told how many outputs have been made.
        skip_nonfinite: leave out samples for which the teacher has no finite output.
    """

    folder: Path
    plan: Manifest
    splits: Mapping[str, Split]
    views: Mapping[str, Views]
    answer: Callable[[str, Record], Record]
    on_rows: Callable[[int], None]
    skip_nonfinite: bool = False

    def start(self) -> None:
        """Make the folder, or meet the labelling that was begun in it; one process does this."""
        (self.folder / PIECES).mkdir(parents=True, exist_ok=True)
        if not (self.folder / PROBES).exists():
            probes = [self._probes(part) for part in self.plan.parts if part.samples]
            write_rows(self.folder / PROBES, joined(probes))
        write(self.folder / PLAN, self.plan)

    def spans(self) -> dict[str, list[Span]]:
        """What the pieces in the folder cover, by part."""
        found: dict[str, list[Span]] = {part.name: [] for part in self.plan.parts}
        for path in sorted((self.folder / PIECES).glob("*.safetensors")):
            part, begin, end = path.stem.rsplit("-", 2)
            found[part].append((int(begin), int(end)))
        return found

    def run(self, covered: Mapping[str, Sequence[Span]], rank: int = 0, ranks: int = 1) -> None:
        """Label what is not covered yet: this process's share of it.

        Raises:
            InputError: the teacher gave NaN or infinite outputs.
            RunError: the disk is full.
        """
        for part in self.plan.parts:
            for begin, end in covered[part.name]:
                self.on_rows((end - begin) * part.views)
            rest = _missing(part, covered[part.name], self.plan.batch)
            mine = rest[len(rest) * rank // ranks : len(rest) * (rank + 1) // ranks]
            for piece in self._pieces(part, mine):
                begin, records = piece
                whole = joined(records)
                name = f"{part.name}-{begin:012d}-{begin + length(whole):012d}.safetensors"
                write_rows(self.folder / PIECES / name, whole)

    def seal(self) -> Manifest:
        """Make the store of the pieces, once they are all there; one process does this."""
        shards: list[Shard] = []
        skipped: list[int] = []
        for part in self.plan.parts:
            files = sorted((self.folder / PIECES).glob(f"{part.name}-*.safetensors"))
            pieces = [read_shard(path) for path in files]
            for piece in pieces:
                skipped += piece["hash"][piece["lost"].bool()].tolist()
            shards += self._seal(part, pieces)
        write_rows(self.folder / INDEX, self._index(shards))
        sealed = {
            "shards": shards,
            "skipped": skipped,
            "index": file_sha256(self.folder / INDEX),
            "probes": file_sha256(self.folder / PROBES),
        }
        manifest = self.plan.model_copy(update=sealed)
        write(self.folder / MANIFEST, manifest)
        (self.folder / PLAN).unlink()
        shutil.rmtree(self.folder / PIECES)
        return manifest

    # Inside.

    def _pieces(self, part: Part, batches: Sequence[Span]) -> Iterator[tuple[int, list[Record]]]:
        """Neighbouring batches in pieces, with the position of the first sample."""
        held: list[Record] = []
        first, size, since = 0, 0, time.monotonic()
        for number, (begin, end) in enumerate(batches):
            if held and first + sum(map(length, held)) != begin:
                yield first, held
                held, size, since = [], 0, time.monotonic()
            if not held:
                first = begin
            ahead = batches[number + 1] if number + 1 < len(batches) else None
            held.append(self._batch(part, begin, end, ahead))
            size += row_bytes(form_of(held[-1])) * (end - begin)
            self.on_rows((end - begin) * part.views)
            if time.monotonic() - since > PIECE_SECONDS or size > PIECE_BYTES:
                yield first, held
                held, size, since = [], 0, time.monotonic()
        if held:
            yield first, held

    def _batch(self, part: Part, begin: int, end: int, ahead: Span | None) -> Record:
        """The rows of a batch: every view of each sample."""
        split = self.splits[part.name]
        clean = split.fetch(torch.arange(begin, end))
        if ahead is not None:
            split.prefetch(torch.arange(*ahead))
        views = [self._view(part, clean, view) for view in range(part.views)]
        rows = {key: torch.stack([kept[key] for kept in views], 1) for key in views[0]}
        lost = rows.pop("lost").any(1)
        if lost.any() and not self.skip_nonfinite:
            self._refuse(part, clean["index"].cpu()[lost])
        hashes = batch_hashes(clean["x"])
        return {"id": clean["index"].cpu(), "hash": hashes, "lost": lost.short(), **rows}

    def _view(self, part: Part, clean: Record, view: int) -> Record:
        """What is kept of one view of a batch, on the CPU."""
        batch = self.views[part.name](clean, view) if view else clean
        with torch.inference_mode():
            said = self.answer(part.name, batch)
            kept = pack(said["logits"], self.plan.top_k, self.plan.dtype)
            kept["lost"] = ~said["logits"].isfinite().all(-1)
            for path in self.plan.features:
                feature = pooled(said[path]) if self.plan.pooled else said[path]
                kept[f"feature.{path}"] = pack(feature, None, self.plan.dtype)["logits"]
        return {key: value.cpu().clone() for key, value in kept.items()}

    def _refuse(self, part: Part, ids: Tensor) -> None:
        some = ", ".join(map(str, ids[:8].tolist())) + (", ..." if len(ids) > 8 else "")
        raise InputError(
            f"the teacher {self.plan.author.name!r} gives NaN or infinite outputs for sample(s) "
            f"{some} of the {part.name} split; mend it, or leave such samples out with "
            f"--skip-nonfinite"
        )

    def _probes(self, part: Part) -> Record:
        """Some inputs as the teacher sees them; a training that replays others is wrong."""
        split = self.splits[part.name]
        count = min(8, part.samples)
        clean = split.fetch(torch.linspace(0, part.samples - 1, count).long())
        hashes = batch_hashes(clean["x"])
        records = []
        for view in range(part.views)[-4:]:
            x = (self.views[part.name](clean, view) if view else clean)["x"].cpu()
            seen = x if x.dtype == torch.int64 else to_float(x)
            view_of = torch.full((count,), view)
            ids = clean["index"].cpu()
            records.append({"id": ids, "hash": hashes, "view": view_of, "x": seen})
        return joined(records)

    def _seal(self, part: Part, pieces: Sequence[Record]) -> list[Shard]:
        """The part's pieces as shards."""
        rows = sum(int((piece["lost"] == 0).sum()) for piece in pieces)
        if not rows:
            return []
        records = map(_kept, pieces)
        form = form_of(_kept(rows_of(pieces[0], 0, 1)))
        limit = max(1, SHARD_BYTES // row_bytes(form))
        shards = []
        rest: Record | None = None
        for number, begin in enumerate(range(0, rows, limit)):
            path = self.folder / f"{part.name}-{number:05d}.safetensors"
            size = min(limit, rows - begin)
            rest = _fill(path, form, size, records, rest)
            shards.append(
                Shard(
                    file=path.name,
                    part=part.name,
                    rows=size,
                    views=part.views,
                    sha256=file_sha256(path),
                )
            )
        return shards

    def _index(self, shards: Sequence[Shard]) -> Record:
        """Rows in the order of their content's hash; of equal ones those with most views first."""
        if not shards:
            raise InputError(f"no sample has a finite output: nothing to store in {self.folder}")
        hashes = torch.cat([read_shard(self.folder / shard.file)["hash"] for shard in shards])
        views = torch.cat([torch.full((shard.rows,), shard.views) for shard in shards])
        order = views.argsort(stable=True, descending=True)
        order = order[hashes[order].argsort(stable=True)]
        return {"hash": hashes[order], "row": order}


def pooled(feature: Tensor) -> Tensor:
    """The mean over positions: maps (B, C, H, W) to (B, C), tokens (B, L, D) to (B, D)."""
    if feature.ndim == 3:
        return feature.float().mean(1)
    return feature.float().flatten(2).mean(2) if feature.ndim > 3 else feature


def _missing(part: Part, covered: Sequence[Span], batch: int) -> list[Span]:
    """The batches of the part's grid that no piece holds."""
    have = {place for begin, end in covered for place in range(begin, end, batch)}
    grid = range(0, part.samples, batch)
    return [(begin, min(begin + batch, part.samples)) for begin in grid if begin not in have]


def _kept(piece: Record) -> Record:
    """A piece without the samples that are left out."""
    kept = {key: value for key, value in piece.items() if key != "lost"}
    lost = piece["lost"].bool()
    return {key: value[~lost] for key, value in kept.items()} if lost.any() else kept


def _fill(
    path: Path, form: Form, rows: int, records: Iterator[Record], rest: Record | None
) -> Record | None:
    """Write a shard of `rows` rows from the records, and return what is left of the last."""
    try:
        with ShardWriter(path, form, rows) as shard:
            while rows:
                record = rest if rest is not None else next(records)
                taken = min(rows, length(record))
                shard.add(rows_of(record, 0, taken))
                rest = rows_of(record, taken, length(record)) if taken < length(record) else None
                rows -= taken
    except OSError as error:
        raise full_disk(path, error) from None
    return rest
