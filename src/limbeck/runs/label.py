"""Labelling: teachers run once over data, and their outputs are stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from limbeck import __version__
from limbeck.data.base import Data, Record, Split
from limbeck.data.views import Views
from limbeck.engine.ranks import Ranks, choose_device
from limbeck.errors import InputError
from limbeck.models.card import read_card
from limbeck.models.ref import parse_ref
from limbeck.recipe import yaml
from limbeck.recipe.folder import hold
from limbeck.recipe.spec import Recipe, TeacherSpec, Training
from limbeck.runs.api import make_recipe, new_folder, teacher_list
from limbeck.runs.evaluate import encoding_of
from limbeck.runs.execute import quiet
from limbeck.runs.job import TeacherLike, attempt, compare_width, make_teacher
from limbeck.runs.models import sized
from limbeck.runs.progress import bars
from limbeck.runs.stores import digest_of, make_views
from limbeck.store.manifest import (
    DTYPES,
    MANIFEST,
    Author,
    Dtype,
    Manifest,
    Part,
    Replay,
    difference,
    read_plan,
)
from limbeck.store.outside import Outside
from limbeck.store.reader import TeacherStore
from limbeck.store.writer import Labelling, pooled
from limbeck.tasks.build import build_task
from limbeck.teachers.live import LiveTeacher


@dataclass(frozen=True)
class Wish:
    """What is to be kept of the outputs.

    Attributes:
        top_k: logits of a row, None: all.
        dtype: `fp16`, `bf16` or `fp32`.
        pooled: keep the mean of a tapped feature over its positions, not all of it.
        batch: samples in a forward pass, None: 256 on the CPU, where the teacher takes them in
            chunks that stay in its cache, else 1,024.
        skip_nonfinite: leave out samples for which the teacher has no finite output.
        splits: which parts of the data, None: all of them.
    """

    top_k: int | None = None
    dtype: Dtype = "fp16"
    pooled: bool = True
    batch: int | None = None
    skip_nonfinite: bool = False
    splits: Sequence[str] | None = None

    def __post_init__(self) -> None:
        for name, value in (("top_k", self.top_k), ("batch", self.batch)):
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; give 1 or more")
        if self.dtype not in DTYPES:
            raise InputError(f"dtype is {self.dtype!r}; take {', '.join(DTYPES)}")


def label(
    teacher: TeacherLike | Sequence[TeacherLike],
    data: Any,
    *,
    views: int = 1,
    top_k: int | None = None,
    dtype: Dtype = "fp16",
    taps: Sequence[str] = (),
    pooled: bool = True,
    batch: int | None = None,
    skip_nonfinite: bool = False,
    splits: Sequence[str] | None = None,
    task: str | None = None,
    training: Training | Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Any:
    """Run a teacher over data once, and store its outputs.

    The training samples and the pool are labelled in `views` views, of which view 0 is the clean
    sample; validation and test samples in the clean view only.

    Args:
        teacher: as in `distill`; of several each gets a store of its own, `OUT/0`, `OUT/1`, ...
        data: as in `distill`.
        views: how many views of each sample; more than one needs `training["views"]`.
        top_k: logits kept of each row, with the log of the mass of all others; None: all logits.
        dtype: how they are kept: `fp16`, `bf16` or `fp32`.
        taps: module paths of the teacher whose features are stored too.
        pooled: keep features as means over their positions.
        batch: samples in a forward pass; chosen where not said.
        skip_nonfinite: leave out samples for which the teacher has no finite output.
        splits: of `train`, `pool`, `val`, `test`; all that the data has where not said.
        task: as in `distill`.
        training: as in `distill`; read are `views`, `device`, `precision` and `workers`.
        out: the store's folder; a new one under `runs/` where not said.
        resume: go on with the labelling that was begun in `out`.
        progress: show a progress bar.

    Returns:
        The finished `TeacherStore`, to be given as a teacher; a list of them for several teachers.

    Raises:
        InputError: something does not fit, or the teacher gives NaN.
        RunError: the disk is full; what is labelled is kept.
    """
    if not isinstance(views, int) or views < 1:
        raise InputError(f"views is {views!r}; give the number of views of each sample, 1 or more")
    recipe = make_recipe(
        "", data, method="labels", task=task, training=training, input=None, seed=0
    )
    counted = recipe.training.model_copy(update={"view_count": views})
    recipe = recipe.model_copy(update={"training": counted})
    given = teacher_list(teacher)
    wish = Wish(top_k, dtype, pooled, batch, skip_nonfinite, splits)
    folder = new_folder("label") if out is None else Path(out)
    stores = label_all(
        recipe, wish, folder, teachers=given, taps=taps, data=data, resume=resume, progress=progress
    )
    return stores[0] if len(given) == 1 else stores


def label_all(
    recipe: Recipe,
    wish: Wish,
    folder: Path,
    *,
    teachers: Sequence[TeacherLike] | None = None,
    taps: Sequence[str] = (),
    data: Any = None,
    resume: bool = False,
    progress: bool = True,
) -> list[TeacherStore]:
    """Label with every teacher of the recipe, or with those that are given."""
    given = recipe.teachers if teachers is None else teachers
    if not given:
        raise InputError("name who labels with --teacher MODEL")
    device = choose_device(recipe.training.device)
    loaded = _load(recipe, data, given[0])
    task = build_task(recipe, loaded)
    if loaded.train is not loaded.pool:
        task.check(loaded)
    stores = []
    for number, one in enumerate(given):
        teacher = make_teacher(one, loaded, task)
        if not isinstance(teacher, LiveTeacher):
            raise InputError(f"{teacher.name!r} is stored already; name a model to label with")
        if taps:
            teacher.tap(taps)
        place = folder if len(given) == 1 else folder / str(number)
        made = _Made(recipe, wish, loaded, device, _author(teacher, one, loaded), teacher)
        stores.append(made.store(place, resume=resume, progress=progress))
    return stores


def _load(recipe: Recipe, data: Any, teacher: TeacherLike) -> Data:
    """The data; a source without labels is a pool, read as the teacher's own data was."""
    from limbeck.data.load import load_data
    from limbeck.data.unlabeled import has_no_labels, load_pool

    source = recipe.data.source if data is None else data
    if not has_no_labels(source, recipe.data.label):
        return load_data(
            recipe.data if data is None else data,
            spec=recipe.data,
            workers=recipe.training.workers,
        )
    model = teacher if isinstance(teacher, str) else getattr(teacher, "model", "")
    if model and parse_ref(model).source == "run":
        card = read_card(parse_ref(model).name)
        encode, tensors = encoding_of(card)
        return load_pool(source, encode, tensors, shape=card.shape, classes=card.classes)
    classes = getattr(teacher, "classes", None) or ()
    return load_pool(source, None, classes=[str(name) for name in classes])


def label_from(
    recipe: Recipe,
    wish: Wish,
    folder: Path,
    file: Path,
    *,
    data: Any = None,
    resume: bool = False,
    progress: bool = True,
) -> TeacherStore:
    """Store outputs that were made elsewhere; see `limbeck.store.outside.Outside`.

    Raises:
        InputError: a file that cannot be read, or that knows none of the samples.
    """
    from limbeck.data.load import load_data

    if (recipe.training.view_count or 1) > 1:
        raise InputError(f"outputs from {file} are of clean samples; leave --views away")
    loaded = load_data(recipe.data if data is None else data, spec=recipe.data)
    build_task(recipe, loaded).check(loaded)
    outside = Outside(file, loaded.classes)
    author = Author(name=outside.name, weights=outside.digest)
    made = _Made(recipe, wish, loaded, torch.device("cpu"), author, outside)
    return made.store(folder, resume=resume, progress=progress)


@dataclass(frozen=True)
class _Made:
    """Who labels what, checked."""

    recipe: Recipe
    wish: Wish
    data: Data
    device: torch.device
    author: Author
    teacher: LiveTeacher | Outside

    def store(self, folder: Path, *, resume: bool, progress: bool) -> TeacherStore:
        """Label into `folder`, and open what came of it."""
        ranks = Ranks(self.device)
        folder = ranks.agree(folder)
        splits = self._splits()
        train = {name: split for name, split in splits.items() if name in ("train", "pool")}
        views = make_views(self.recipe, self.data.kind, train) or {}
        plan = self._plan(splits, views)
        lock = _claim(folder) if ranks.first else None
        try:
            if ranks.first:
                _refuse_other(folder, plan, resume)
            if ranks.agree((folder / MANIFEST).exists()):
                return TeacherStore(folder)
            with bars(show=progress and ranks.first) as display, display.run("label") as report:
                total = sum(part.samples * part.views for part in plan.parts)
                count = _Count(total, report if ranks.first else quiet)
                skip = self.wish.skip_nonfinite
                work = Labelling(folder, plan, splits, views, self._answer, count, skip)
                if ranks.first:
                    work.start()
                    yaml.write(folder / "recipe.yaml", self._recipe())
                work.run(ranks.agree(work.spans()), ranks.rank, ranks.count)
                ranks.wait()
                if ranks.first:
                    work.seal()
                ranks.wait()
            return TeacherStore(folder)
        finally:
            if lock is not None:
                lock.close()

    def _splits(self) -> dict[str, Split]:
        named = {name: self.data.splits[name] for name in self._names()}
        if isinstance(self.teacher, Outside):
            return self.teacher.covers(named)
        for module in self.teacher.modules():
            module.to(self.device)
        return {name: split.to(self.device) for name, split in named.items()}

    def _names(self) -> list[str]:
        alone = self.data.train is self.data.pool
        have = {"pool": self.data.train} if alone else self.data.splits
        wanted = list(have) if self.wish.splits is None else list(self.wish.splits)
        for name in wanted:
            if name not in have:
                raise InputError(
                    f"{self.data.name} has no split {name!r} to label; it has {', '.join(have)}"
                )
        order = ("train", "pool", "val", "test")
        return [name for name in order if name in wanted]

    def _plan(self, splits: Mapping[str, Split], views: Mapping[str, Views]) -> Manifest:
        count = self.recipe.training.view_count or 1
        if count > 1 and not self.recipe.training.views:
            raise InputError(
                f"{count} views of samples that nothing augments are all the same: name "
                f"augmentations, for example --training.views flip crop"
            )
        first, split = next(iter(splits.items()))
        sample = split.fetch(torch.zeros(1, dtype=torch.int64))
        with torch.inference_mode():
            who = f"teacher {self.author.name!r}"
            said = attempt(lambda: self._answer(first, sample), who, sample)
        if self.data.classes:
            compare_width(said["logits"], build_task(self.recipe, self.data), self.data, who)
        taps = [] if isinstance(self.teacher, Outside) else self.teacher.taps
        kept = {path: pooled(said[path]) if self.wish.pooled else said[path] for path in taps}
        names = [str(number) for number in range(said["logits"].shape[1])]
        return Manifest(
            limbeck=__version__,
            author=self.author,
            classes=list(self.data.classes) or names,
            top_k=None if self.wish.top_k is None else min(self.wish.top_k, len(names)),
            dtype=self.wish.dtype,
            features={path: list(value.shape[1:]) for path, value in kept.items()},
            pooled=self.wish.pooled,
            replay=self._replay(views) if count > 1 else Replay(),
            parts=[self._part(name, split, count) for name, split in splits.items()],
            batch=self.wish.batch or (256 if self.device.type == "cpu" else 1024),
        )

    def _replay(self, views: Mapping[str, Views]) -> Replay:
        training = self.recipe.training
        definitions = {name: one.definition() for name, one in views.items()}
        return Replay(count=training.view_count, ops=training.views, definitions=definitions)

    @staticmethod
    def _part(name: str, split: Split, count: int) -> Part:
        views = count if name in ("train", "pool") else 1
        return Part(name=name, samples=len(split), views=views, digest=split.fingerprint())

    def _answer(self, part: str, batch: Record) -> Record:
        if isinstance(self.teacher, Outside):
            return self.teacher.answer(part, batch)
        if self.recipe.training.precision == "fp32":
            return self.teacher(batch)
        with torch.autocast(self.device.type, torch.bfloat16):
            return self.teacher(batch)

    def _recipe(self) -> dict[str, Any]:
        plain = self.recipe.model_dump(mode="json", exclude={"method", "student", "compare"})
        return plain | {"out": None}


class _Count:
    """Adds up the outputs that have been made, for the progress bar."""

    def __init__(self, total: int, report: Callable[[int, int, str], None]) -> None:
        self.total, self.report, self.done = total, report, 0

    def __call__(self, outputs: int) -> None:
        self.done += outputs
        self.report(self.done, self.total, "outputs")


def _author(teacher: LiveTeacher, given: TeacherLike, data: Data) -> Author:
    mean, std, size = teacher.adapter.key
    named = TeacherSpec(model=given) if isinstance(given, str) else given
    spec = named if isinstance(named, TeacherSpec) else None
    return Author(
        name=teacher.name,
        model=None if spec is None else _reference(spec.model, data),
        weights=digest_of(teacher.model),
        input={"mean": mean and list(mean), "std": std and list(std), "size": size and list(size)},
        classes=None if spec is None else spec.classes,
        parameters=sum(parameter.numel() for parameter in teacher.model.parameters()),
    )


def _reference(model: str, data: Data) -> str:
    """The name that builds the teacher again, whatever data is at hand then."""
    reference = parse_ref(model)
    return model if reference.source == "run" else sized(reference, data).text


def _claim(folder: Path) -> IO[bytes]:
    """Make the folder and hold it."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out {folder} is a file; name a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return hold(folder / "lock", folder)
    except OSError as error:
        raise InputError(f"cannot write to the folder {folder}: {error.strerror}") from None


def _refuse_other(folder: Path, plan: Manifest, resume: bool) -> None:
    """Refuse a folder in which another store stands, or another labelling was begun."""
    begun = read_plan(folder)
    if ((folder / MANIFEST).exists() or begun is not None) and not resume:
        raise InputError(
            f"a store stands in {folder} already; go on with it by --resume {folder}, or name "
            f"another folder with --out"
        )
    other = None if begun is None else difference(begun, plan)
    if other is not None:
        raise InputError(
            f"{folder} was begun as another labelling: {other} now; give what it was begun with, "
            f"or name another folder with --out"
        )
