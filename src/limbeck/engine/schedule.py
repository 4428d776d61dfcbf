"""Learning rate as a pure function of the step."""

from __future__ import annotations

import math

from limbeck.recipe.spec import Schedule


def factor(schedule: Schedule, step: int, steps: int, steps_per_epoch: int) -> float:
    """Share of the base learning rate at `step` of `steps`.

    During the warm-up it grows linearly to 1; afterwards it follows the schedule over the
    steps that remain.
    """
    warmup = round(schedule.warmup * steps_per_epoch)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    if schedule.name == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    if schedule.name == "multistep":
        return float(schedule.gamma ** sum(progress >= mark for mark in schedule.milestones))
    return 1.0
