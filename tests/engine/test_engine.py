"""The engine's arithmetic, against the same thing written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from tiny_engine import arrays, make_engine, network, parameters, settings
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import limbeck as lb
from limbeck.data.base import Record
from limbeck.engine.checkpoint import load_tensors
from limbeck.engine.engine import Engine
from limbeck.methods.base import Method, MethodSpec, Setting
from limbeck.methods.entry import Entry
from limbeck.methods.registry import METHODS
from limbeck.nn.taps import Taps


class OwnSpec(MethodSpec):
    name: str = "own"


class Own(Method):
    """A method whose step the test writes."""

    Spec: ClassVar[type[MethodSpec]] = OwnSpec
    run: ClassVar[Any] = None
    before: ClassVar[Any] = None

    def __init__(self, student: nn.Module, setting: Setting, spec: OwnSpec) -> None:
        super().__init__(student, setting)

    def prepare(self, engine: Engine) -> None:
        if Own.before is not None:
            Own.before(self, engine)

    def step(self, batch: Record, engine: Engine) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = Own.run(self, batch, engine)
        return terms


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> type[Own]:
    entry = Entry("The test's own", "none", "nothing", f"{__name__}:Own")
    monkeypatch.setitem(METHODS, "own", entry)
    monkeypatch.setattr(Own, "run", None)
    monkeypatch.setattr(Own, "before", None)
    return Own


def by_hand(engine: Engine, steps: int, **options: Any) -> list[Tensor]:
    """The labels' loss by SGD, written out."""
    model = network(0)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, **options
    )
    for step in range(steps):
        batch = engine.feed.batch(step)
        optimizer.zero_grad()
        F.cross_entropy(model(batch["x"]), batch["y"]).backward()
        optimizer.step()
    return [parameter.detach() for parameter in model.parameters()]


def test_labels_alone_are_plain_sgd_on_cross_entropy() -> None:
    engine = make_engine("labels")
    for _ in range(8):
        engine.step()
    torch.testing.assert_close(parameters(engine), by_hand(engine, 8))


def test_micro_batches_make_the_same_step() -> None:
    whole, split = make_engine("kd"), make_engine("kd", accumulate=3)
    for _ in range(8):
        whole.step()
        split.step()
    torch.testing.assert_close(parameters(whole), parameters(split))
    assert split.flush()["loss"] == pytest.approx(whole.flush()["loss"], rel=1e-5)


def test_clipping_bounds_the_joint_norm() -> None:
    engine = make_engine("labels", clip=1e-3, optimizer={"momentum": 0, "weight_decay": 0})
    before = parameters(engine)
    engine.step()
    moves = [(a - b) / 0.05 for a, b in zip(before, parameters(engine), strict=True)]
    norm = torch.cat([move.flatten() for move in moves]).norm()
    assert norm.item() == pytest.approx(1e-3, rel=1e-2)
    loose, free = make_engine("labels", clip=1e6), make_engine("labels")
    loose.step()
    free.step()
    torch.testing.assert_close(parameters(loose), parameters(free))


def test_the_average_follows_its_formula() -> None:
    engine = make_engine("labels", ema=0.9)
    expected = parameters(engine)
    for _ in range(4):
        engine.step()
        expected = [
            0.9 * mean + 0.1 * now for mean, now in zip(expected, parameters(engine), strict=True)
        ]
    assert engine.ema is not None
    torch.testing.assert_close([p.detach() for p in engine.ema.parameters()], expected)


def test_a_step_never_waits_for_the_device() -> None:
    """On an accelerator each of these would stop the host until the device is done."""

    class Waits(TorchDispatchMode):
        seen: ClassVar[list[str]] = []

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
            if func.name() in ("aten::_local_scalar_dense", "aten::equal", "aten::nonzero"):
                self.seen.append(func.name())
            return func(*args, **(kwargs or {}))

    engine = make_engine("kd", clip=1.0, ema=0.9, accumulate=2, optimizer={"name": "adam"})
    engine.step()
    with Waits() as waits:
        for _ in range(4):
            engine.step()
        assert waits.seen == []
        torch.ones(()).item()
        assert waits.seen


def test_terms_may_come_and_go(own: type[Own]) -> None:
    def run(method: Own, batch: Record, engine: Engine) -> dict[str, Tensor]:
        loss = method.setting.task.loss(batch["student.logits"], batch)
        engine.update("student", loss)
        late = {"late": torch.tensor(2.0)} if engine.clock.step else {}
        return {"labels": loss, **late}

    own.run = run
    engine = make_engine("own")
    for _ in range(3):
        engine.step()
    line = engine.flush()
    assert list(line["terms"]) == ["labels", "late"]
    assert line["terms"]["late"] == 2.0
    assert line["step"] == 3


def test_a_gradient_that_repeats_one_number_in_memory(own: type[Own]) -> None:
    def run(method: Own, batch: Record, engine: Engine) -> dict[str, Tensor]:
        loss = torch.stack([p.sum() for p in method.student.parameters()]).sum()
        engine.update("student", loss)
        return {"sum": loss}

    own.run = run
    engine = make_engine("own", optimizer={"momentum": 0, "weight_decay": 0}, clip=1e6)
    before = parameters(engine)
    engine.step()
    for old, new in zip(before, parameters(engine), strict=True):
        torch.testing.assert_close(old - new, torch.full_like(old, 0.05))


def test_gradients_of_second_order_reach_the_method(own: type[Own]) -> None:
    """A step down the squared norm of the gradient needs the gradient's own graph."""

    def run(method: Own, batch: Record, engine: Engine) -> dict[str, Tensor]:
        loss = method.setting.task.loss(batch["student.logits"], batch)
        first = engine.grads(loss, "student", create_graph=True)
        penalty = sum((part.square().sum() for part in first), loss.new_zeros(()))
        second = engine.grads(penalty, "student", retain_graph=True)
        engine.apply("student", second)
        return {"labels": loss, "penalty": penalty}

    own.run = run
    engine = make_engine("own", optimizer={"momentum": 0, "weight_decay": 0, "lr": 0.01})
    model = network(0)
    batch = engine.feed.batch(0)
    loss = F.cross_entropy(model(batch["x"]), batch["y"])
    first = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
    penalty = torch.stack([part.square().sum() for part in first]).sum()
    expected = [
        p - 0.01 * g
        for p, g in zip(
            model.parameters(),
            torch.autograd.grad(penalty, list(model.parameters())),
            strict=True,
        )
    ]
    engine.step()
    torch.testing.assert_close(parameters(engine), [p.detach() for p in expected])


def test_the_same_draws_at_the_same_step(own: type[Own]) -> None:
    drawn: list[Tensor] = []

    def run(method: Own, batch: Record, engine: Engine) -> dict[str, Tensor]:
        for stream in ("a", "a", "b"):
            drawn.append(torch.rand(2, generator=engine.generator(stream)))
        engine.update("student", method.setting.task.loss(batch["student.logits"], batch))
        return {}

    own.run = run
    engine = make_engine("own")
    engine.step()
    engine.step()
    engine.flush()
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[3])


def test_two_updates_a_step_cannot_be_accumulated(own: type[Own]) -> None:
    def run(method: Own, batch: Record, engine: Engine) -> dict[str, Tensor]:
        for _ in range(2):
            logits = method.student(batch["x"])
            engine.update("student", method.setting.task.loss(logits, batch))
        return {}

    own.run = run
    make_engine("own").step()
    with pytest.raises(lb.RunError, match=r"training\.accumulate: 1"):
        make_engine("own", accumulate=2).step()


def test_every_update_of_a_first_stage_is_a_step(own: type[Own]) -> None:
    def before(method: Own, engine: Engine) -> None:
        for step in range(3):
            batch = engine.feed.batch(step)
            engine.update("student", F.cross_entropy(method.student(batch["x"]), batch["y"]))

    own.before = before
    engine = make_engine("own", accumulate=2)
    reference = make_engine("labels", accumulate=2)
    model = network(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    for step in range(3):
        batch = reference.feed.batch(step)
        optimizer.zero_grad()
        F.cross_entropy(model(batch["x"]), batch["y"]).backward()
        optimizer.step()
    engine.prepare()
    torch.testing.assert_close(parameters(engine), [p.detach() for p in model.parameters()])


def test_a_loss_that_no_parameter_feeds_is_refused(own: type[Own]) -> None:
    def run(method: Own, batch: Record, engine: Engine) -> dict[str, Tensor]:
        engine.update("student", torch.ones((), requires_grad=True) * 2)
        return {}

    own.run = run
    with pytest.raises(lb.RunError, match="no parameter of the role 'student'"):
        make_engine("own").step()


def test_half_precision_is_for_models_and_losses_stay_single(own: type[Own]) -> None:
    kinds: dict[str, torch.dtype] = {}

    def run(method: Own, batch: Record, engine: Engine) -> dict[str, Tensor]:
        kinds.update({key: batch[key].dtype for key in ("student.logits", "teacher.logits")})
        kinds["product"] = (batch["x"] @ batch["x"].T).dtype
        loss = method.setting.task.loss(batch["student.logits"], batch)
        engine.update("student", loss)
        return {"labels": loss}

    own.run = run
    engine = make_engine("own", precision="bf16")
    inside: list[torch.dtype] = []
    engine.method.student[0].register_forward_hook(lambda m, a, out: inside.append(out.dtype))
    engine.step()
    assert inside == [torch.bfloat16]
    assert set(kinds.values()) == {torch.float32}
    assert {p.dtype for p in engine.method.parameters()} == {torch.float32}
    # And it trains: close to single precision, but not the same.
    single, half = make_engine("kd"), make_engine("kd", precision="bf16")
    for _ in range(6):
        single.step()
        half.step()
    for a, b in zip(parameters(single), parameters(half), strict=True):
        torch.testing.assert_close(a, b, rtol=0.05, atol=0.02)
    assert any(
        not torch.equal(a, b) for a, b in zip(parameters(single), parameters(half), strict=True)
    )


def test_half_precision_that_needs_scaling_is_refused() -> None:
    with pytest.raises(lb.InputError, match=r"fp16 needs loss scaling.*take bf16"):
        lb.train(network, arrays(), training={"precision": "fp16"})


@pytest.mark.parametrize("keep", ["last", "best"])
def test_what_is_delivered_is_what_was_measured(tmp_path: Path, keep: str) -> None:
    """At a rate this high the loss on validation is lowest long before the end."""
    rough = settings(epochs=12, keep=keep, metric="nll", optimizer={"lr": 1.0})
    result = lb.train(network, arrays(), training=rough, out=tmp_path / "run", progress=False)
    assert result.metrics["best.epoch"] < 12
    assert result.metrics["val.nll"] == result.metrics[f"{keep}.val.nll"]
    said, _ = load_tensors(result.run / "predictions.safetensors")
    test = lb.load_data(arrays()).test
    assert test is not None
    batch = test.fetch(torch.arange(len(test)))
    with torch.no_grad():
        torch.testing.assert_close(result.student(batch["x"]), said["test.logits"])
    kept, _ = load_tensors(result.run / "checkpoints" / f"{keep}.safetensors")
    assert all(
        torch.equal(kept[f"method.student.{key}"], value)
        for key, value in result.student.state_dict().items()
    )


def test_a_delivered_student_carries_no_hooks() -> None:
    engine = make_engine("labels", ema=0.5)
    for forward in (engine.forward, engine.evaluated):
        forward.taps = Taps(forward.model, ["0"])
    engine.step()
    for student in (engine.deliver(), engine.method.student):
        assert not any(module._forward_hooks for module in student.modules())


def test_batch_statistics_of_the_average_are_the_students() -> None:
    def normalized(seed: int) -> nn.Module:
        return nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))

    engine = make_engine("labels", student=normalized, ema=0.5)
    engine.method.train()
    engine.step()
    assert engine.ema is not None
    theirs = dict(engine.method.student.named_buffers())
    assert all(torch.equal(value, theirs[name]) for name, value in engine.ema.named_buffers())
    assert theirs["1.num_batches_tracked"] == 1
