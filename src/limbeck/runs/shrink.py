"""`shrink`: from a trained teacher to a narrower, distilled, exported student in one go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.data.random import generator
from limbeck.diagnosis.size import effective_size
from limbeck.engine.checkpoint import load_tensors, save_tensors
from limbeck.errors import InputError
from limbeck.models.ref import ModelRef, parse_ref
from limbeck.recipe.folder import read_json, write_json
from limbeck.recipe.spec import Recipe, Training
from limbeck.runs.api import make_recipe, new_folder, run_job
from limbeck.runs.diagnose import diagnose_job
from limbeck.runs.execute import Result
from limbeck.runs.export import export
from limbeck.runs.job import Job, StudentLike, TeacherLike, make_job
from limbeck.students import export_dense, keep_best, spectralize, start_from
from limbeck.teachers.live import LiveTeacher

STAGES = ("size", "start", "diagnose", "distill", "export")
START = "start.safetensors"
SAMPLES, HELD_OUT = 5000, 1000
Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """How a student is to be found.

    Attributes:
        reduction: parameters of the teacher over the student's; None: the knee of the error.
        widths: of every hidden layer, instead of looking for them.
        epochs: of the spectral training.
        skip: stages to leave out: "start" begins at random, "diagnose" takes plain KD.
        formats: of the export.
    """

    reduction: float | None = None
    widths: Sequence[int] | None = None
    epochs: int = 30
    skip: Sequence[str] = ()
    formats: Sequence[str] = ("safetensors",)

    def __post_init__(self) -> None:
        unknown = set(self.skip) - set(STAGES[1:3]) - {"export"}
        if unknown:
            raise InputError(
                f"cannot skip {', '.join(sorted(unknown))}; only start, diagnose and export (with "
                f"widths given the size is not looked for)"
            )
        if self.reduction is not None and not self.reduction > 1:
            raise InputError(f"reduction is {self.reduction:g}: above 1, such as 8")
        if self.widths is not None and (not self.widths or min(self.widths) < 1):
            raise InputError(f"widths are {list(self.widths)}: positive whole numbers, one a layer")
        if self.epochs < 1:
            raise InputError(f"epochs is {self.epochs}: 1 or more")


def shrink(
    teacher: TeacherLike,
    data: Any,
    *,
    reduction: float | None = None,
    widths: Sequence[int] | None = None,
    training: Training | dict[str, Any] | None = None,
    skip: Sequence[str] = (),
    seed: int = 0,
    out: str | Path | None = None,
) -> Result:
    """Find the width, start from the teacher, choose the mix, distil, export.

    Each stage leaves a file in `out`, and is not done again where that file stands there.

    Args:
        teacher: one trained network whose graph torch.fx can read.
        data: as in `limbeck.distill`.
        reduction: parameters of the teacher over those of the student; None: as few nodes as a
            spectral copy of the teacher needs.
        widths: of every hidden layer, instead of looking for them.
        training: of the distillation.
        skip: of "start", "diagnose" and "export".
        seed: of everything.
        out: the folder; a new one under `runs/` where it is not said.

    Returns:
        The run of the distilled student; its export stands in `out/export`.

    Raises:
        InputError: a teacher that cannot be cut, or a plan out of range.
    """
    plan = Plan(reduction, widths, skip=skip)
    recipe = make_recipe(
        teacher if isinstance(teacher, str) else "",
        data,
        method="kd",
        task=None,
        training=training,
        input=None,
        seed=seed,
    )
    folder = new_folder("shrink") if out is None else Path(out)
    return shrink_recipe(recipe, plan, folder, teacher=teacher, data=data)


def shrink_recipe(
    recipe: Recipe,
    plan: Plan,
    folder: Path,
    *,
    teacher: TeacherLike | None = None,
    data: Any = None,
    say: Say = lambda line: None,
) -> Result:
    """The same from a recipe; objects take the place of its names."""
    given = None if teacher is None else [teacher]
    # A stand-in for the student, which is only known after the first stage.
    job = make_job(recipe, student=nn.Identity(), teachers=given, data=data)
    model = live_model(job)
    widths = _once(folder / "size.json", lambda: find_widths(job, model, plan), say)["widths"]
    student: StudentLike = _start(job, model, widths, plan, folder, say)
    name = narrower_name(_named(recipe, teacher), widths)
    if name is not None:
        student = name if "start" in plan.skip else f"{name}@{folder / START}"
    content = recipe.model_copy(update={"student": student if isinstance(student, str) else ""})
    job = make_job(content, student=student, teachers=given, data=data)
    if "diagnose" not in plan.skip:
        diagnosis = _once(folder / "diagnosis.json", lambda: _diagnose(job), say)
        say(diagnosis["verdict"]["words"])
        method = diagnosis["verdict"]["method"] or {"name": "kd"}
        job = job.change(content.model_copy(update={"method": method}))
    run = folder / "student"
    result = run_job(job, run, resume=run.exists(), progress=True)
    if "export" not in plan.skip and not (folder / "export" / "card.json").exists():
        export(run, folder / "export", formats=plan.formats, data=data, model=result.student)
        say(f"export: {folder / 'export'}")
    return result


def _named(recipe: Recipe, teacher: TeacherLike | None) -> str | None:
    if isinstance(teacher, str):
        return teacher
    return recipe.teachers[0].model if teacher is None and recipe.teachers else None


def live_model(job: Job) -> LiveTeacher:
    """The teacher's network, which must be one and live."""
    members = job.teachers.members
    if len(members) != 1 or not isinstance(members[0], LiveTeacher):
        raise InputError("shrink makes one live teacher smaller: name one, no store and no several")
    teacher = members[0]
    teacher.tap(())  # its own modules again, whatever made it faster
    if teacher.order is not None:
        raise InputError("shrink needs a teacher whose outputs stand in the order of the classes")
    return teacher


def _once(file: Path, stage: Callable[[], dict[str, Any]], say: Say) -> dict[str, Any]:
    """What a stage found, from its file where it has been done."""
    if file.exists():
        say(f"{file.stem}: taken from {file}")
    else:
        write_json(file, stage())
        say(f"{file.stem}: {file}")
    found: dict[str, Any] = read_json(file)
    return found


def samples(job: Job, teacher: LiveTeacher) -> tuple[Tensor, Tensor, Tensor]:
    """Training samples as the teacher takes them; held-out ones with their labels."""
    order = torch.randperm(len(job.data.train), generator=generator(job.recipe.seed, "shrink"))
    train = job.data.train.fetch(order[:SAMPLES])["x"]
    held_out = job.data.val.fetch(torch.arange(min(HELD_OUT, len(job.data.val))))
    return teacher.adapter(train), teacher.adapter(held_out["x"]), held_out["y"]


def find_widths(job: Job, teacher: LiveTeacher, plan: Plan) -> dict[str, Any]:
    """Nodes of every hidden layer that the student is to have."""
    if plan.widths is not None:
        return {"widths": list(plan.widths)}
    x, held_out, y = samples(job, teacher)
    with torch.no_grad():
        logits = torch.cat([teacher.forward.model(part) for part in torch.split(x, 512)])
    network = teacher.model.requires_grad_(True)
    spectral, width = effective_size(
        network, (x, logits), (held_out, y), epochs=plan.epochs, seed=job.recipe.seed
    )
    network.requires_grad_(False)
    alive = dict(width.alive)
    if plan.reduction is not None:
        alive = _by_parameters(teacher.model, spectral, width.total, plan.reduction)
    return {
        "widths": [int(kept.sum()) for kept in alive.values()],
        "knee": width.nodes,
        "ramp": {str(count): value for count, value in width.ramp.items()},
    }


def _by_parameters(
    model: nn.Module, spectral: nn.Module, total: int, reduction: float
) -> dict[str, Tensor]:
    """The most nodes, best first, of which a network has few enough parameters."""
    wanted = _parameters(model) / reduction
    low, high = 1, total
    while low < high:
        middle = (low + high + 1) // 2
        alive = keep_best(spectral, middle)
        fits = _parameters(narrowed(model, [int(k.sum()) for k in alive.values()])) <= wanted
        low, high = (middle, high) if fits else (low, middle - 1)
    return keep_best(spectral, low)


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def narrowed(model: nn.Module, widths: Sequence[int]) -> nn.Module:
    """A network of the teacher's structure and other widths; its weights mean nothing yet."""
    from limbeck.students.spectral import spectral_groups

    spectral = spectralize(model, bias="gated")
    groups = spectral_groups(spectral)
    if len(groups) != len(widths):
        raise InputError(
            f"{len(widths)} widths for {len(groups)} groups of hidden nodes "
            f"({', '.join(f'{group.name} {group.width}' for group in groups)}): give one for each"
        )
    alive = {}
    for group, width in zip(groups, widths, strict=True):
        if width > group.width:
            raise InputError(f"{group.name} has {group.width} nodes: {width} are more")
        alive[group.name] = torch.arange(group.width) < width
    return export_dense(spectral, alive).requires_grad_(True)


def narrower_name(teacher: str | None, widths: Sequence[int]) -> str | None:
    """The student by name, where the teacher is a reference network with a width for each layer."""
    reference = None if teacher is None else parse_ref(teacher)
    if reference is not None and reference.source == "run":
        from limbeck.models.card import read_card

        source = read_card(reference.name).source
        reference = None if source is None else parse_ref(source)
    if reference is None or not _has_widths(reference):
        return None
    plain = ModelRef(reference.source, reference.name, text=f"limbeck:{reference.name}")
    options = reference.options | {"widths": list(widths)}
    return plain.with_options(**options).text


def _has_widths(reference: ModelRef) -> bool:
    return reference.source == "limbeck" and reference.name in ("mlp", "convnet")


def _start(
    job: Job, teacher: LiveTeacher, widths: Sequence[int], plan: Plan, folder: Path, say: Say
) -> nn.Module:
    """The student with its first weights."""
    student = narrowed(teacher.model, widths)
    if "start" in plan.skip:
        return _reset(student, job.recipe.seed)
    file = folder / START
    if file.exists():
        student.load_state_dict(load_tensors(file)[0])
        say(f"start: taken from {file}")
        return student
    x, held_out, _ = samples(job, teacher)
    start = start_from(teacher.model, student, x=x, held_out=held_out, seed=job.recipe.seed)
    save_tensors(file, start.student.state_dict(), {"losses": start.losses})
    say(f"start: {start.strategy}, distance from the teacher {start.losses[start.strategy]:.3g}")
    return start.student


def _reset(model: nn.Module, seed: int) -> nn.Module:
    """Every layer drawn anew, as torch draws them."""
    from limbeck.runs.seeding import seeded

    with seeded(seed, "student"):
        for part in model.modules():
            reset = getattr(part, "reset_parameters", None)
            if callable(reset):
                reset()
    return model


def _diagnose(job: Job) -> dict[str, Any]:
    return diagnose_job(job, skip=("size", "start")).as_json()
