"""The agreement gate: a teacher whose gradients oppose the others' is not heard."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from limbeck.functional import agreement_gate, gradient_cosines, opposed_camps, teacher_agreement

_log = logging.getLogger("limbeck")

DECAY = 0.95
"""Of the running means of the cosines."""


class Gate(nn.Module):
    """Running cosines between the gradients of M teachers, and whom they leave.

    Args:
        teachers: M.
    """

    cosines: Tensor

    def __init__(self, teachers: int) -> None:
        super().__init__()
        self.register_buffer("cosines", torch.full((teachers, teachers), torch.nan))
        self._said: set[str] = set()

    def forward(self, gram: Tensor) -> Tensor:
        """Take one step's Gram (M, M), on the CPU, into the means; who is heard, bool (M,)."""
        found = gradient_cosines(gram).float()
        before = self.cosines.cpu()
        running = torch.where(before.isnan(), found, DECAY * before + (1 - DECAY) * found)
        self.cosines.copy_(running)
        return agreement_gate(running)

    def warn(self, names: Sequence[str], step: int) -> None:
        """Say, once each, who is not heard, and where the teachers fall into equal camps."""
        cosines = self.cosines.cpu()
        if bool((cosines >= 0).all()):
            return
        agreement = teacher_agreement(cosines)
        for place in (~agreement_gate(cosines)).nonzero()[:, 0].tolist():
            self._say(
                f"teacher {place}",
                f"teacher {place} ({names[place]}) is not heard from step {step + 1} on: its "
                f"gradients oppose the other teachers' (mean cosine {agreement[place]:.2f}); check "
                f"its classes and its input, or set method.gate: false",
            )
        if camps := opposed_camps(cosines):
            one, other = (", ".join(f"{place} ({names[place]})" for place in c) for c in camps)
            self._say(
                "camps",
                f"teachers {one} and {other} oppose each other, and no gradient tells which are "
                f"right: all are heard; compare them on the validation split",
            )

    def _say(self, what: str, message: str) -> None:
        if what not in self._said:
            self._said.add(what)
            _log.warning(message)
