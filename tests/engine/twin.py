"""A method with two roles, as another package would bring it; what the engine's tests train."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from limbeck.data.base import Record
from limbeck.engine.engine import Engine
from limbeck.methods.base import Method, MethodSpec, Setting
from limbeck.methods.entry import Entry

ENTRY = Entry("A critic of the teacher, trained beside the student", "none", "logits", "twin:Twin")


class TwinSpec(MethodSpec):
    name: Literal["twin"] = "twin"
    noise: float = 0.1
    bad_step: int | None = None
    """Step at which something is not finite."""
    bad: Literal["term", "gradient", "applied"] = "term"


class Twin(Method):
    """The critic maps the teacher's noisy logits to labels; the student imitates the critic."""

    Spec: ClassVar[type[MethodSpec]] = TwinSpec
    roles: ClassVar = {"student": ("student",), "critic": ("critic",)}

    def __init__(self, student: nn.Module, setting: Setting, spec: TwinSpec) -> None:
        super().__init__(student, setting)
        self.spec = spec
        self.critic = nn.Linear(setting.classes, setting.classes)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def step(self, batch: Record, engine: Engine) -> dict[str, Tensor]:
        self.seen += len(batch["y"])
        teacher = batch["teacher.logits"]
        noise = torch.randn(teacher.shape, generator=engine.generator("noise"))
        said = self.critic(teacher + self.spec.noise * noise)
        critic = F.cross_entropy(said[: len(batch["y"])], batch["y"])
        engine.update("critic", critic)
        soft = said.detach().softmax(-1)
        imitate = F.cross_entropy(batch["student.logits"], soft)
        labels = 0.5 * self.setting.task.loss(batch["student.logits"], batch)
        if engine.clock.step == self.spec.bad_step:
            imitate = self.spoil(imitate, batch, engine)
        engine.update("student", imitate + labels)
        return {"critic": critic, "imitate": imitate, "labels": labels}

    def spoil(self, loss: Tensor, batch: Record, engine: Engine) -> Tensor:
        if self.spec.bad == "term":
            return loss * float("inf")
        if self.spec.bad == "gradient":  # finite itself, but its slope at 0 is not
            return loss + (batch["student.logits"].mean() * 0).sqrt()
        gradients = [torch.full_like(p, float("nan")) for p in self.critic.parameters()]
        engine.apply("critic", gradients)
        return loss


class GreedySpec(MethodSpec):
    name: Literal["greedy"] = "greedy"


class Greedy(Method):
    """Takes its gradients itself: the plain supervised step, spelled out."""

    Spec: ClassVar[type[MethodSpec]] = GreedySpec
    differentiates = True

    def __init__(self, student: nn.Module, setting: Setting, spec: GreedySpec) -> None:
        super().__init__(student, setting)

    def step(self, batch: Record, engine: Engine) -> dict[str, Tensor]:
        loss = self.setting.task.loss(batch["student.logits"], batch)
        engine.apply("student", engine.grads(loss, "student"))
        return {"labels": loss}


GREEDY = Entry("Takes its gradients itself", "none", "labels", "twin:Greedy")
