"""The loop: epochs of steps, each followed by validation and a checkpoint."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from limbeck.data.base import Record, Split
from limbeck.data.collect import collect
from limbeck.engine.checkpoint import load_tensors, save_tensors
from limbeck.engine.engine import Engine
from limbeck.engine.state import (
    engine_state,
    load_engine_state,
    load_model_state,
    model_state,
)
from limbeck.recipe.folder import RunFolder
from limbeck.tasks.base import Task

_log = logging.getLogger("limbeck")

Report = Callable[[int, int, str], None]
"""Told (steps done, steps in all, a few words) at every log line."""


@dataclass
class Standing:
    """What the loop knows beyond the engine's tensors; stands in every checkpoint.

    Attributes:
        step: steps done.
        best: best value of the metric on validation so far.
        best_epoch: the epoch that it was reached in, counted from 1.
        stale: evaluations since then.
        stopped: whether early stopping has ended the training.
        metrics_bytes: length of `metrics.jsonl`; what a killed run wrote after it is cut off.
    """

    step: int = 0
    best: float | None = None
    best_epoch: int = 0
    stale: int = 0
    stopped: bool = False
    metrics_bytes: int = 0


class Loop:
    """Trains to the end, or goes on where the folder's last checkpoint stands.

    Args:
        engine: does the steps.
        folder: where checkpoints and logs go.
        task: gives the metrics.
        val: the validation split, on the engine's device.
        report: told of progress.
    """

    def __init__(
        self, engine: Engine, folder: RunFolder, task: Task, val: Split, report: Report
    ) -> None:
        self.engine = engine
        self.folder = folder
        self.task = task
        self.val = val
        self.report = report
        self.standing = Standing()
        self.training = engine.training
        self.sign = task.better(self.training.metric)
        self.started = time.monotonic()

    def run(self) -> Standing:
        """Train; the engine's student is then the last epoch's."""
        engine = self.engine
        engine.announce()
        per_epoch = engine.feed.plan.steps_per_epoch
        cards = [engine.device] if engine.device.type == "cuda" else []
        with torch.random.fork_rng(cards):
            self.resume()
            while engine.done < engine.steps and not self.standing.stopped:
                self._epoch(engine.done // per_epoch + 1, per_epoch)
        return self.standing

    def resume(self) -> None:
        """Load the last checkpoint, or prepare the method where there is none."""
        facts = self._load()
        if facts is None:
            self.engine.prepare()
        else:
            self.standing = Standing(**facts)
            _log.info("resumed at step %d of %d", self.standing.step, self.engine.steps)
        self.folder.metrics.truncate(self.standing.metrics_bytes)

    def _load(self) -> dict[str, Any] | None:
        """Every rank reads the checkpoint that the first has written."""
        path = self.folder.checkpoint("last")
        if not path.exists():
            return None
        tensors, facts = load_tensors(path)
        load_engine_state(self.engine, tensors, facts["step"])
        return facts

    def _epoch(self, epoch: int, per_epoch: int) -> None:
        engine, training = self.engine, self.training
        engine.method.train()
        engine.begin_epoch()
        while engine.done < epoch * per_epoch:
            engine.step()
            if engine.done % training.log_every == 0 or engine.done == epoch * per_epoch:
                self._log("train", engine.flush())
        engine.synchronize_buffers()
        last = epoch == training.epochs
        if last or epoch % training.eval_every == 0:
            self._validate(epoch)
        if last or self.standing.stopped or epoch % training.checkpoint_every == 0:
            self._checkpoint()

    def _validate(self, epoch: int) -> None:
        metrics = self.task.metrics(self.outputs(self.val), self._labels(self.val))
        self._log("val", {"step": self.engine.done, "epoch": epoch, **metrics})
        # Every rank has computed it; one's last digit must not make another stop alone.
        value = self.engine.ranks.agree(metrics[self.training.metric])
        standing = self.standing
        if standing.best is None or self.sign * value > self.sign * standing.best:
            standing.best, standing.best_epoch, standing.stale = value, epoch, 0
            self._keep_best()
        else:
            standing.stale += 1
        patience = self.training.early_stop
        standing.stopped = patience is not None and standing.stale >= patience

    def outputs(self, split: Split) -> Tensor:
        """The delivered student's logits for a split, on the CPU."""
        engine = self.engine

        def answer(batch: Record) -> Tensor:
            for key, value in engine.evaluated(batch["x"]).items():
                batch[f"student.{key}"] = value
            return engine.method.predict(batch)

        training = engine.method.training
        engine.method.eval()
        if engine.ema is not None:
            engine.ema.eval()
        try:
            return collect(answer, split)
        finally:
            engine.method.train(training)

    @staticmethod
    def _labels(split: Split) -> Tensor:
        if split.y is None:
            raise ValueError("a split without labels cannot be evaluated")
        return split.y

    def restore(self, name: str) -> None:
        """Put the modules back to the checkpoint `last` or `best`."""
        tensors, _ = load_tensors(self.folder.checkpoint(name))
        load_model_state(self.engine, tensors)

    def _keep_best(self) -> None:
        self._save("best", model_state(self.engine), {"epoch": self.standing.best_epoch})

    def _checkpoint(self) -> None:
        self.standing.step = self.engine.done
        self.standing.metrics_bytes = self.folder.metrics.sync()
        self._save("last", engine_state(self.engine), asdict(self.standing))

    def _save(self, name: str, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        if self.folder.writer:
            save_tensors(self.folder.checkpoint(name), tensors, facts)
        self.engine.ranks.wait()

    def _log(self, event: str, line: dict[str, Any]) -> None:
        while self.engine.events:
            self.folder.metrics.append(self.engine.events.pop(0))
        self.folder.metrics.append({"event": event, **line})
        self.folder.timing.append(
            {"event": event, "step": line["step"], "seconds": time.monotonic() - self.started}
        )
        words = f"loss {line['loss']:.4f}" if event == "train" else f"val {self._headline(line)}"
        self.report(self.engine.done, self.engine.steps, words)

    def _headline(self, line: dict[str, Any]) -> str:
        return f"{self.training.metric} {line[self.training.metric]:.4f}"
