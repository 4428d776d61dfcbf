"""The engine: it runs student and teachers, and owns optimisers, ranks, precision and randomness.

A method asks it for four things: `update`, `grads`, `apply` and `generator`. It knows no method
by name, and nobody subclasses it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from limbeck.data.base import Record
from limbeck.data.feed import Feed
from limbeck.data.random import derive
from limbeck.data.random import generator as make_generator
from limbeck.engine.checkpoint import nest, unnest
from limbeck.engine.losslog import Interval, LossLog
from limbeck.engine.ranks import Ranks
from limbeck.engine.role import Role
from limbeck.engine.schedule import factor
from limbeck.errors import InputError, RunError
from limbeck.methods.base import Clock, Method
from limbeck.nn.forward import Forward
from limbeck.nn.input import InputAdapter
from limbeck.recipe.spec import Training
from limbeck.teachers.several import Teachers


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
    ) -> None:
        if training.strategy == "shard" and method.differentiates:
            raise InputError(
                "this method differentiates through the student, which sharded parameters cannot "
                "do; use training.strategy: replicate"
            )
        self.method = method.to(device)
        self.teachers = teachers.to(device)
        self.feed = feed
        self.training = training
        self.ranks = ranks
        self.device = device
        self.seed = seed
        self.steps = training.epochs * feed.plan.steps_per_epoch
        self.done = 0
        self._micro = 0
        self._nonfinite = torch.zeros((), device=device)
        self._one = torch.ones((), device=device)
        self.losses = LossLog(self._nonfinite)
        ranks.broadcast([*method.parameters(), *method.buffers()])
        self.ema = copy.deepcopy(method.student) if training.ema else None
        self.sharded = training.strategy == "shard" and ranks.count > 1
        if self.sharded:
            from torch.distributed.fsdp import fully_shard

            fully_shard(method.student)
        self.adapter = adapter.to(device)
        student = torch.compile(method.student) if training.compile else method.student
        self.forward = Forward(student, self.adapter, method.student_taps)  # type: ignore[arg-type]
        self.roles = {name: self._role(name) for name in method.roles}

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
        if self.sharded:
            self._update_sharded(self.roles[role], loss)
        else:
            self.apply(role, self.grads(loss, role))

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
        if self.sharded:
            raise RunError("gradients of a sharded student cannot be taken; use `update`")
        parameters = self.roles[role].parameters
        found = torch.autograd.grad(
            loss,
            parameters,
            create_graph=create_graph,
            retain_graph=retain_graph,
            allow_unused=True,
        )
        if all(gradient is None for gradient in found):
            raise RunError(f"the loss depends on no parameter of the role {role!r}")
        gradients = [
            torch.zeros_like(parameter) if gradient is None else gradient
            for gradient, parameter in zip(found, parameters, strict=True)
        ]
        *gradients, mean = self.ranks.mean(
            [*gradients, loss.detach().clone()], differentiable=create_graph
        )
        # The check writes in place, which a graph that is kept would not survive.
        seen = [gradient.detach().clone() for gradient in gradients] if create_graph else gradients
        self._watch([*seen, mean.detach()])
        return gradients

    def apply(self, role: str, gradients: Sequence[Tensor]) -> None:
        """Give `role` these gradients; its optimiser steps on the last micro-batch."""
        target = self.roles[role]
        pending = target.accumulate(gradients, 1.0 / self.training.accumulate)
        if self._last_micro:
            if self.training.clip is not None:
                _clip(pending, self.training.clip)
            target.step(pending)

    def generator(self, stream: int | str = 0) -> torch.Generator:
        """A generator for randomness inside a step: a function of (seed, step, rank, stream)."""
        place = (self.done, self._micro, self.ranks.rank, stream)
        return make_generator(self.seed, "step", *place, device=self.device)

    # What the loop asks for.

    def step(self) -> None:
        """One step of training: every micro-batch of it."""
        share = factor(
            self.training.schedule, self.done, self.steps, self.feed.plan.steps_per_epoch
        )
        for role in self.roles.values():
            role.set_rate(share)
        for micro in range(self.training.accumulate):
            self._micro = micro
            self._seed_layers()
            batch = self.feed.batch(self.done, self._micro)
            with self._autocast():
                if not self.method.raw:
                    self._fill(batch)
                terms = self.method.step(batch, self)
            self.losses.add(terms)
        self.done += 1
        self._micro = 0
        if self.ema is not None:
            self._average()

    def flush(self) -> dict[str, Any]:
        """The log line of the steps since the last one; the host waits for the device here.

        Raises:
            RunError: a loss or a gradient was not finite; no update was made since.
        """
        first = self.done - self.losses.steps // self.training.accumulate
        interval = self.losses.flush(self.ranks)
        self._refuse_nonfinite(interval, first)
        return {
            "step": self.done,
            "epoch": -(-self.done // self.feed.plan.steps_per_epoch),
            "lr": self.rate,
            "loss": sum(interval.means.values()),
            "terms": interval.means,
        }

    @property
    def rate(self) -> float:
        """Learning rate of the last step of the first role."""
        role = next(iter(self.roles.values()))
        return float(role.optimizer.param_groups[0]["lr"])

    def student(self) -> nn.Module:
        """The student as it is evaluated and delivered: its moving average where there is one."""
        return self.method.student if self.ema is None else self.ema

    def synchronize_buffers(self) -> None:
        """Give every rank the first rank's batch statistics."""
        self.ranks.broadcast(self.method.buffers())

    def state_dict(self) -> dict[str, Tensor]:
        """Every tensor that the training depends on."""
        tensors = self.model_state()
        for name, role in self.roles.items():
            tensors |= nest(f"optimizer.{name}", _gather(role.state()))
        return tensors

    def model_state(self) -> dict[str, Tensor]:
        """The tensors of all modules, without the optimisers'."""
        tensors = nest("method", _gather(self.method.state_dict()))
        if self.ema is not None:
            tensors |= nest("ema", self.ema.state_dict())
        return tensors

    def load_model_state(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `model_state` returned."""
        own = self.method.state_dict()
        state = unnest("method", tensors)
        self.method.load_state_dict({key: _place(value, own[key]) for key, value in state.items()})
        if self.ema is not None:
            self.ema.load_state_dict(unnest("ema", tensors))

    def load_state_dict(self, tensors: dict[str, Tensor], step: int) -> None:
        """Go on from `state_dict` after `step` steps."""
        self.load_model_state(tensors)
        for name, role in self.roles.items():
            state = unnest(f"optimizer.{name}", tensors)
            role.load(_shard_like(state, role) if self.sharded else state)
        self.done = step

    # Inside.

    @property
    def _last_micro(self) -> bool:
        return self._micro + 1 == self.training.accumulate

    def _fill(self, batch: Record) -> None:
        """Run teachers and student on the batch; the teachers first, the device then overlaps."""
        batch.update(self.teachers(batch))
        for key, value in self.forward(batch["x"]).items():
            batch[f"student.{key}"] = value

    def _autocast(self) -> torch.autocast:
        on = self.training.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=on)

    def _seed_layers(self) -> None:
        """Dropout and its like draw from torch's own generator: seed it by the step."""
        seed = derive(self.seed, "layers", self.done, self._micro, self.ranks.rank)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        else:
            torch.default_generator.manual_seed(seed)

    def _watch(self, tensors: list[Tensor]) -> None:
        """Raise the device-side flag if anything is not finite (one pass, no waiting)."""
        torch._amp_foreach_non_finite_check_and_unscale_(tensors, self._nonfinite, self._one)

    def _update_sharded(self, role: Role, loss: Tensor) -> None:
        (loss / self.training.accumulate).backward()  # type: ignore[no-untyped-call]
        local = [p.grad.to_local() for p in role.parameters if p.grad is not None]  # type: ignore[attr-defined]
        self._watch([*local, loss.detach().clone()])
        self.ranks.maximum(self._nonfinite)
        if self._last_micro:
            if self.training.clip is not None:
                nn.utils.clip_grad_norm_(role.parameters, self.training.clip)
            role.optimizer.step()
            role.optimizer.zero_grad(set_to_none=True)

    def _average(self) -> None:
        """Move the averaged student towards the trained one; its buffers are copied."""
        decay = self.training.ema or 0.0
        ours, theirs = self.ema, self.method.student
        if ours is None:
            return
        with torch.no_grad():
            torch._foreach_lerp_(
                list(ours.parameters()), [p.detach() for p in theirs.parameters()], 1 - decay
            )
            for mine, other in zip(ours.buffers(), theirs.buffers(), strict=True):
                mine.copy_(other)

    def _refuse_nonfinite(self, interval: Interval, first: int) -> None:
        if not interval.suppressed and interval.bad_term is None:
            return
        if interval.bad_term is None:
            what = f"a gradient was not finite between steps {first} and {self.done}"
        else:
            step = first + interval.bad_step // self.training.accumulate
            what = f"the loss term {interval.bad_term!r} was not finite at step {step}"
        raise RunError(
            f"{what} (learning rate {self.rate:.3g}); no update was made from there on. Lower "
            f"training.optimizer.lr, set training.clip, or check the inputs"
        )


def _clip(gradients: list[Tensor], limit: float) -> None:
    """Scale gradients in place so that their joint norm is at most `limit`."""
    norm = torch.stack(torch._foreach_norm(gradients)).norm()
    torch._foreach_mul_(gradients, (limit / (norm + 1e-6)).clamp(max=1.0))


def _gather(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Sharded tensors made whole; a collective call where there are any."""
    return {
        key: value.full_tensor() if hasattr(value, "full_tensor") else value
        for key, value in state.items()
    }


def _shard_like(state: dict[str, Tensor], role: Role) -> dict[str, Tensor]:
    """Optimiser tensors laid out as the parameters they belong to."""
    placed = {}
    for key, value in state.items():
        parameter = role.parameters[int(key.partition(".")[0])]
        placed[key] = _place(value, parameter) if value.shape == parameter.shape else value
    return placed


def _place(value: Tensor, like: Tensor) -> Tensor:
    """`value`, sharded over the ranks as `like` is."""
    if not hasattr(like, "device_mesh"):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)  # type: ignore[attr-defined]
