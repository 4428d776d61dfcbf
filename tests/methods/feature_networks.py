"""Two small convolutional networks on the digits, as a method under test meets them."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from limbeck.data.base import ArraySplit, Record
from limbeck.data.feed import Feed
from limbeck.data.load import load_data
from limbeck.data.plan import BatchPlan
from limbeck.engine.engine import Engine
from limbeck.engine.ranks import Ranks
from limbeck.methods.base import Clock, Method, Setting
from limbeck.methods.term import TermModule
from limbeck.models.small import convnet
from limbeck.nn.forward import Forward
from limbeck.nn.input import InputAdapter
from limbeck.nn.taps import tap_shapes
from limbeck.recipe.spec import Training
from limbeck.tasks.classification import Classification
from limbeck.teachers.base import Teacher
from limbeck.teachers.live import LiveTeacher
from limbeck.teachers.several import Teachers

BATCH, CLASSES, SAMPLES = 64, 10, 256


class Pair:
    """A student, a trained teacher of another width, and data."""

    def __init__(self, student: nn.Module, teacher: nn.Module, split: ArraySplit) -> None:
        self.student, self.teacher, self.split = student, teacher, split
        self.models = {"student": student, "teacher": teacher}

    def setting(self, **changes: object) -> Setting:
        facts = {
            "task": Classification([str(i) for i in range(CLASSES)]),
            "classes": CLASSES,
            "teachers": 1,
            "live": True,
            "seed": 0,
            "observe": self.observe,
            "survey": lambda who: tap_shapes(self.models[who], self.split.x[:2]),
            "ids": self.split.ids,
            "module": lambda who, path: self.models[who].get_submodule(path),
        }
        return Setting(**{**facts, **changes})

    def observe(self, ours: Sequence[str], theirs: Sequence[str]) -> Record:
        with torch.no_grad():
            training = self.student.training
            record = self.record(torch.arange(2), ours, theirs, train=False)
            self.student.train(training)
        return record

    def record(
        self, rows: Tensor, ours: Sequence[str], theirs: Sequence[str], *, train: bool = True
    ) -> Record:
        """A batch with what both networks say of it."""
        batch = self.split.fetch(rows)
        taps = {"student": ours, "teacher": theirs}
        for who, model in self.models.items():
            model.train(train and who == "student")
            forward = Forward(model, InputAdapter(), taps[who])
            with torch.set_grad_enabled(torch.is_grad_enabled() and who == "student"):
                found = forward(batch["x"])
            forward.taps.remove()
            batch.update({f"{who}.{key}": value for key, value in found.items()})
        return batch

    def batches(self, ours: Sequence[str], theirs: Sequence[str], steps: int) -> list[Record]:
        return [self.record(self.rows(step), ours, theirs) for step in range(steps)]

    def rows(self, step: int) -> Tensor:
        return torch.arange(BATCH) + BATCH * (step % (len(self.split) // BATCH))


def digits() -> ArraySplit:
    data = load_data("digits")
    split = data.train.select(torch.arange(SAMPLES))
    return ArraySplit(split.x.float() / split.x.max(), split.y, split.ids)


def make_pair() -> Pair:
    torch.manual_seed(0)
    teacher = convnet(classes=CLASSES, in_channels=1, widths=(12, 24))
    student = convnet(classes=CLASSES, in_channels=1, widths=(6, 10))
    split = digits()
    fit(teacher, split)
    return Pair(student, teacher, split)


def fit(model: nn.Module, split: ArraySplit, epochs: int = 12) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(epochs):
        for rows in torch.arange(len(split)).split(BATCH):
            record = split.fetch(rows)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(record["x"]), record["y"]).backward()
            optimizer.step()
    model.eval().requires_grad_(False)


def train_term(
    pair: Pair, term: TermModule, steps: int = 24, lr: float = 3e-3, momentum: float | None = None
) -> list[float]:
    """The values of a term while student and term are trained on it alone.

    By Adam, or by SGD where `momentum` is given.
    """
    parameters = [*pair.student.parameters(), *term.parameters()]
    optimizer = (
        torch.optim.Adam(parameters, lr=lr)
        if momentum is None
        else torch.optim.SGD(parameters, lr=lr, momentum=momentum)
    )
    per_epoch = len(pair.split) // BATCH
    values = []
    term.train()
    for step in range(steps):
        batch = pair.record(pair.rows(step), term.student_taps, term.teacher_taps)
        loss = term.spec.weight * term(batch, Clock(step, steps, per_epoch))
        optimizer.zero_grad()
        loss.backward()
        gradients = [p.grad for p in parameters if p.grad is not None]
        assert all(bool(g.isfinite().all()) for g in gradients)
        assert any(float(g.norm()) > 0 for g in gradients)
        optimizer.step()
        values.append(float(loss.detach()))
    return values


def make_engine(
    pair: Pair,
    method: Method,
    teachers: Sequence[Teacher] | None = None,
    *,
    epochs: int = 8,
    lr: float = 0.02,
) -> Engine:
    """The real engine on the pair's data, with the pair's teacher where no others are given.

    Teachers are tapped where the method reads them.
    """
    # A live teacher changes the layout of its model.
    members = [LiveTeacher(copy.deepcopy(pair.teacher))] if teachers is None else teachers
    heard = Teachers(members)
    heard.tap(method.teacher_taps)
    cpu = torch.device("cpu")
    training = Training(epochs=epochs, batch=BATCH, optimizer={"lr": lr})
    plan = BatchPlan(labeled=len(pair.split), batch=BATCH, seed=0)
    feed = Feed(plan, {"train": pair.split}, None, cpu)
    return Engine(
        method,
        heard,
        feed,
        training,
        adapter=InputAdapter(),
        ranks=Ranks(cpu),
        device=cpu,
        seed=0,
    )


def run(engine: Engine) -> list[dict[str, float]]:
    """Prepare and train; the summands of every epoch."""
    engine.method.prepare(engine)
    engine.method.train()
    lines = []
    while engine.done < engine.steps:
        engine.step()
        if engine.done % engine.feed.plan.steps_per_epoch == 0:
            lines.append(engine.flush()["terms"])
    return lines
