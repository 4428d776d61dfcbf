"""The contract of a task: what the student is for."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from limbeck.data.base import Data, Record


class Task(ABC):
    """Supervised loss, metrics and prediction of one kind of problem.

    A task knows the data's labels and no method; methods ask it for the supervised loss.
    """

    name: str

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Width of the student's output."""

    @abstractmethod
    def check(self, data: Data) -> None:
        """Refuse data that this task cannot train on, with an `InputError`."""

    @abstractmethod
    def loss(self, logits: Tensor, batch: Record) -> Tensor:
        """The supervised loss of the labelled rows (the first `len(batch["y"])`), a scalar."""

    @abstractmethod
    def metrics(self, logits: Tensor, y: Tensor) -> dict[str, float]:
        """Every metric of the task over a whole split."""

    @abstractmethod
    def predict(self, logits: Tensor) -> dict[str, Tensor]:
        """Columns of a table of predictions, one row a sample."""

    @abstractmethod
    def better(self, metric: str) -> int:
        """+1 where a larger value of `metric` is better, -1 where a smaller one is."""
