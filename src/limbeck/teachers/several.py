"""All teachers of a run as one: fills the `teacher.*` keys of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from limbeck.data.base import Record
from limbeck.teachers.base import Teacher, mean_logits


class Teachers:
    """Runs every teacher on a batch.

    One teacher fills `teacher.logits` and `teacher.TAP`. Several fill `teacher.0.logits`,
    `teacher.1.logits`, ... and `teacher.logits`, the logits of their mean probabilities.

    Args:
        members: the teachers, none for a training without one.
    """

    def __init__(self, members: Sequence[Teacher] = ()) -> None:
        self.members = list(members)

    def __len__(self) -> int:
        return len(self.members)

    @property
    def live(self) -> bool:
        """Whether every teacher can be run on new inputs."""
        return all(teacher.live for teacher in self.members)

    def tap(self, paths: Sequence[str]) -> None:
        """Record these module paths of every teacher."""
        for teacher in self.members:
            teacher.tap(paths)

    def to(self, device: torch.device) -> Teachers:
        """Move the models of all teachers."""
        for teacher in self.members:
            for module in teacher.modules():
                module.to(device)
        return self

    def __call__(self, batch: Record) -> Record:
        """The keys `teacher.*` for `batch`."""
        if len(self.members) == 1:
            return {f"teacher.{key}": value for key, value in self.members[0](batch).items()}
        record: Record = {}
        for number, teacher in enumerate(self.members):
            for key, value in teacher(batch).items():
                record[f"teacher.{number}.{key}"] = value
        if record:
            every = [record[f"teacher.{n}.logits"] for n in range(len(self.members))]
            record["teacher.logits"] = mean_logits(every)
        return record
