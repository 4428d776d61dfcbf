"""The engine: it runs student and teachers, and owns optimisers, ranks, precision and randomness.

A method asks it for four things: `update`, `grads`, `apply` and `generator`. It knows no method
by name, and nobody subclasses it.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, final

import torch
from torch import Tensor, nn

from limbeck.data.base import Record
from limbeck.data.feed import Feed
from limbeck.data.random import derive
from limbeck.data.random import generator as make_generator
from limbeck.engine.losslog import Interval, LossLog
from limbeck.engine.ranks import Ranks
from limbeck.engine.role import Role, pieces
from limbeck.engine.schedule import factor
from limbeck.engine.state import whole
from limbeck.engine.survey import Survey
from limbeck.errors import InputError, RunError
from limbeck.methods.base import Clock, Method
from limbeck.nn.forward import Forward
from limbeck.nn.input import InputAdapter
from limbeck.recipe.spec import Training
from limbeck.teachers.several import Teachers

_log = logging.getLogger("limbeck")


@final
class Engine:
    """Trains the roles of a method on a feed of batches.

    Args:
        method: the science; its modules are moved to `device`.
        teachers: run before every step, unless the method is raw.
        feed: step to batch.
        training: optimisers, schedule, precision and so on.
        adapter: the student's input adapter.
        ranks: the processes that train together.
        device: where everything lies.
        seed: of all randomness inside steps.
        clean: the samples that the method may look at besides its batches.
    """

    def __init__(
        self,
        method: Method,
        teachers: Teachers,
        feed: Feed,
        training: Training,
        *,
        adapter: InputAdapter,
        ranks: Ranks,
        device: torch.device,
        seed: int,
        clean: Survey | None = None,
    ) -> None:
        if training.strategy == "shard" and method.differentiates:
            raise InputError(
                "this method differentiates through the student, which sharded parameters cannot "
                "do; use training.strategy: replicate"
            )
        self.method = method.to(device)
        if training.channels_last:
            method.student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.teachers = teachers.to(device)
        self.feed = feed
        self.training = training
        self.ranks = ranks
        self.device = device
        self.seed = seed
        self.clean = clean or Survey()
        self.events: list[dict[str, Any]] = []
        self.steps = training.epochs * feed.plan.steps_per_epoch
        self.done = 0
        # The micro-batch of the present step, and how many it has.
        self._micro, self._micros = 0, training.accumulate
        self._nonfinite = torch.zeros((), device=device)
        self._one = torch.ones((), device=device)
        self.losses = LossLog(self._nonfinite)
        ranks.broadcast([*method.parameters(), *method.buffers()])
        self.ema = copy.deepcopy(method.student) if training.ema else None
        self.sharded = training.strategy == "shard" and ranks.count > 1
        if self.sharded:
            self._shard()
        self.adapter = adapter.to(device)
        self.forward = Forward(method.student, self.adapter, method.student_taps)
        self.evaluated = self.forward
        if self.ema is not None:
            self.evaluated = Forward(self.ema, self.adapter, method.student_taps)
        if training.compile:
            self.forward.model = torch.compile(method.student)  # type: ignore[assignment]
        self.roles = {name: self._role(name) for name in method.roles}

    def _shard(self) -> None:
        """Split the student over the ranks; a whole copy waits on the CPU to be delivered."""
        from limbeck.engine.shard import shard

        self._whole = copy.deepcopy(self.method.student).cpu()
        for module in (self.method.student, self.ema):
            if module is not None:
                shard(module)

    def _role(self, name: str) -> Role:
        modules = [getattr(self.method, part) for part in self.method.roles[name]]
        spec = self.training.optimizers.get(name, self.training.optimizer)
        return Role(name, modules, spec, self._nonfinite)

    # What a method may ask for.

    @property
    def clock(self) -> Clock:
        """Where the training stands."""
        return Clock(self.done, self.steps, self.feed.plan.steps_per_epoch)

    def update(self, role: str, loss: Tensor) -> None:
        """One step of `role` down the gradient of `loss`."""
        target = self.roles[role]
        if self.sharded:
            gradients, mean = self._pieces(target, loss)
        else:
            gradients, mean = self._gradients(target, loss)
        self._watch([*gradients, mean])
        self._give(target, gradients)

    def grads(
        self,
        loss: Tensor,
        role: str,
        *,
        create_graph: bool = False,
        retain_graph: bool | None = None,
    ) -> list[Tensor]:
        """Gradient of the mean of `loss` over the ranks, one tensor a parameter of `role`.

        Args:
            loss: a scalar.
            role: whose parameters to differentiate with respect to.
            create_graph: keep the gradients differentiable, for loops of second order.
            retain_graph: keep the graph for another call; as in `torch.autograd.grad`.

        Raises:
            RunError: the loss depends on no parameter of the role.
        """
        self._refuse_sharded()
        gradients, mean = self._gradients(
            self.roles[role], loss, create_graph=create_graph, retain_graph=retain_graph
        )
        self._watch([mean])
        return gradients

    def apply(self, role: str, gradients: Sequence[Tensor]) -> None:
        """Give `role` these gradients; its optimiser steps on the last micro-batch."""
        self._refuse_sharded()
        # The check writes in place, which a graph that is kept would not survive.
        own = [part.detach().clone() if part.requires_grad else part for part in gradients]
        self._watch(own)
        self._give(self.roles[role], own)

    def record(self, name: str, value: Tensor) -> None:
        """Log a figure beside the losses, its mean over the interval under `figures`.

        Args:
            name: of the figure.
            value: of any shape, the same in every step.
        """
        self.losses.record(name, value)

    def survey(self, part: str, *, student: bool = True) -> Record:
        """All clean samples of "train", "val" or "pool", with what student and teachers say.

        Args:
            part: the split.
            student: run the student, in evaluation mode, as it stands now.

        Returns:
            On the CPU: `index`, `y` where labelled, `teacher.logits` where a teacher or its store
            knows them, and `student.logits`.
        """
        record = self.clean.record(part)
        if student:
            record["student.logits"] = self.clean.logits(part, self.forward)
        return record

    def event(self, kind: str, **facts: Any) -> None:
        """Leave JSON-ready facts for the report, as a line of their own in the metrics log.

        A `curve` has `name`, `x`, `y` and the names of both axes as `xlabel` and `ylabel`; a
        `histogram` has the edges of its bins as `x`, one more than there are counts in `y`.
        """
        self.events.append({"event": kind, "step": self.done, **facts})

    def generator(self, stream: int | str = 0) -> torch.Generator:
        """A generator for randomness inside a step: a function of (seed, step, rank, stream)."""
        place = (self.done, self._micro, self.ranks.rank, stream)
        return make_generator(self.seed, "step", *place, device=self.device)

    # What the loop asks for.

    def announce(self) -> None:
        """Say, before the first step, what the method chose, and which losses see shares only."""
        for line in self.method.describe() if self.ranks.first else ():
            _log.info(line)
        pieces = self.ranks.count * self.training.accumulate
        if self.method.coupled and pieces > 1 and self.ranks.first:
            _log.warning(
                "%s: relates the samples of a batch to one another, and sees each of the %d "
                "shares of a batch (ranks x accumulate) by itself",
                ", ".join(self.method.coupled),
                pieces,
            )

    def prepare(self) -> None:
        """The method's stage before the training, in which every update is a step."""
        self._seed_layers()
        self._micros = 1
        self.method.prepare(self)
        self._micros = self.training.accumulate

    def begin_epoch(self) -> None:
        """What the method does between two epochs."""
        self.method.begin_epoch(self)

    def step(self) -> None:
        """One step of training: every micro-batch of it."""
        for role in self.roles.values():
            role.set_rate(self._factor(self.done))
        for micro in range(self._micros):
            self._micro = micro
            self._seed_layers()
            batch = self.feed.batch(self.done, micro)
            if not self.method.raw:
                self._fill(batch)
            with self._precision(self.method.raw):
                terms = self.method.step(batch, self)
            self.losses.add(terms)
        self._micro = 0
        self.done += 1
        self.losses.end_step()
        if self.ema is not None:
            self._average(self.ema)

    def flush(self) -> dict[str, Any]:
        """The log line of the steps since the last one; the host waits for the device here.

        Raises:
            RunError: a loss or a gradient was not finite; no update was made since.
        """
        first = self.done - self.losses.steps
        interval = self.losses.flush(self.ranks)
        if interval.bad_step is not None:
            self._refuse_nonfinite(interval, first + interval.bad_step)
        line = {
            "step": self.done,
            "epoch": -(-self.done // self.feed.plan.steps_per_epoch),
            "lr": self._rate(self.done - 1),
            "loss": sum(interval.means.values()),
            "terms": interval.means,
        }
        return line | ({"figures": interval.figures} if interval.figures else {})

    def deliver(self) -> nn.Module:
        """The plain student on the CPU, averaged where an average was asked for; no more steps."""
        self.forward.taps.remove()
        self.evaluated.taps.remove()
        student = self.method.student if self.ema is None else self.ema
        if self.sharded:
            self._whole.load_state_dict(whole(self, student))
            student = self._whole
        return student.cpu().eval()

    def synchronize_buffers(self) -> None:
        """Give every rank the first rank's batch statistics."""
        self.ranks.broadcast(self.method.buffers())
        if self.ema is not None:
            self.ranks.broadcast(self.ema.buffers())

    # Inside.

    def _gradients(
        self,
        role: Role,
        loss: Tensor,
        *,
        create_graph: bool = False,
        retain_graph: bool | None = None,
    ) -> tuple[list[Tensor], Tensor]:
        """Gradients and loss, both averaged over the ranks in one reduction."""
        found = torch.autograd.grad(
            loss,
            role.parameters,
            create_graph=create_graph,
            retain_graph=retain_graph,
            allow_unused=True,
        )
        own = [loss.detach().clone(), *role.fill(found)]
        mean, *gradients = self.ranks.mean(own, differentiable=create_graph)
        return gradients, mean.detach()

    def _pieces(self, role: Role, loss: Tensor) -> tuple[list[Tensor], Tensor]:
        """The same for this rank's pieces of the role's parameters."""
        from limbeck.engine import shard

        others = [p for other in self.roles.values() if other is not role for p in other.parameters]
        found = role.fill(shard.gradients(loss, role.parameters, others))
        plain = [number for number, p in enumerate(role.parameters) if p is role.pieces[number]]
        mean, *averaged = self.ranks.mean([loss.detach().clone(), *(found[n] for n in plain)])
        for number, gradient in zip(plain, averaged, strict=True):
            found[number] = gradient
        return found, mean

    def _give(self, role: Role, gradients: list[Tensor]) -> None:
        """Add the gradients to the role's; step where the micro-batch is the step's last."""
        role.accumulate(gradients, self._micro, self._micros)
        if self._micro + 1 == self._micros:
            role.step(self.training.clip)

    def _refuse_sharded(self) -> None:
        if self.sharded:
            raise RunError("gradients of a sharded student cannot be taken; use `update`")

    def _factor(self, step: int) -> float:
        """Share of the base learning rate at a step."""
        per_epoch = self.feed.plan.steps_per_epoch
        return factor(self.training.schedule, step, self.steps, per_epoch)

    def _rate(self, step: int) -> float:
        """Learning rate of the first role at a step."""
        return next(iter(self.roles.values())).spec.lr * self._factor(step)

    def _fill(self, batch: Record) -> None:
        """Run teachers and student on the batch; the teachers first, the device then overlaps."""
        with self._precision(True):
            said = self.teachers(batch)
            said |= {f"student.{key}": value for key, value in self.forward(batch["x"]).items()}
        if self.training.precision != "fp32":
            said = {key: _single(value) for key, value in said.items()}
        batch.update(said)

    def _precision(self, models: bool) -> AbstractContextManager[Any]:
        """Autocast for what runs models; losses are computed in float32."""
        if not models or self.training.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def _seed_layers(self) -> None:
        """Dropout and its like draw from torch's own generators: seed them by the step."""
        seed = derive(self.seed, "layers", self.done, self._micro, self.ranks.rank)
        torch.default_generator.manual_seed(seed)
        if self.device.type != "cpu":
            torch.get_device_module(self.device).manual_seed(seed)

    def _watch(self, tensors: list[Tensor]) -> None:
        """Raise the device-side flag if anything is not finite (one pass, no waiting)."""
        torch._amp_foreach_non_finite_check_and_unscale_(tensors, self._nonfinite, self._one)
        if self.sharded:
            self.ranks.maximum(self._nonfinite)

    @torch.no_grad()
    def _average(self, ema: nn.Module) -> None:
        """Move the averaged student towards the trained one; its buffers are copied."""
        ours, theirs = (pieces(module.parameters()) for module in (ema, self.method.student))
        torch._foreach_lerp_(ours, theirs, 1 - (self.training.ema or 0.0))
        for mine, other in zip(ema.buffers(), self.method.student.buffers(), strict=True):
            mine.copy_(other)

    def _refuse_nonfinite(self, interval: Interval, step: int) -> None:
        what = "a gradient" if interval.bad_term is None else f"the loss term {interval.bad_term!r}"
        since = "; no update was made from there on" if interval.suppressed else ""
        raise RunError(
            f"{what} was not finite at step {step + 1} (learning rate {self._rate(step):.3g})"
            f"{since}. Lower training.optimizer.lr, set training.clip, or check the inputs"
        )


def _single(value: Tensor) -> Tensor:
    """Half precision as float32; anything else as it is."""
    return value.float() if value.is_floating_point() and value.itemsize == 2 else value
