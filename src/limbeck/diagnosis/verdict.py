"""The diagnosis as a whole, and its verdict in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from limbeck.diagnosis.findings import Finding
from limbeck.theory.difficulty import Cell, Difficulty


@dataclass(frozen=True)
class Diagnosis:
    """What `limbeck.diagnose` returns.

    Attributes:
        preflight: the checks.
        difficulty: the grid of mixes; None where it could not be computed.
        size: what the spectral probe says; None where it was skipped or impossible.
        start: held-out loss of each start from the teacher's weights; None likewise.
        notes: why something is None.
        helps: whether distillation is expected to help; None: not to be said.
        words: the verdict with its reason.
        method: the recommended method, for a recipe; None without a recommendation.
        held_out: samples that errors were predicted on.
    """

    preflight: Sequence[Finding]
    difficulty: Difficulty | None
    size: dict[str, Any] | None
    start: dict[str, float] | None
    notes: Sequence[str]
    helps: bool | None
    words: str
    method: dict[str, Any] | None
    held_out: int

    def as_json(self) -> dict[str, Any]:
        """Everything as plain data."""
        difficulty = None if self.difficulty is None else asdict(self.difficulty)
        verdict = {"helps": self.helps, "words": self.words, "method": self.method}
        return {
            "preflight": [asdict(finding) for finding in self.preflight],
            "difficulty": difficulty,
            "size": self.size,
            "start": self.start,
            "notes": list(self.notes),
            "held_out": self.held_out,
            "verdict": verdict,
        }


def hard_cell(grid: Difficulty) -> Cell:
    """The cell that is nearest to labels alone."""
    return min(grid.cells, key=lambda cell: (cell.soft_ratio, cell.temperature))


def recommended(cell: Cell) -> dict[str, Any]:
    """Plain KD with the minimum of a cell."""
    return {
        "name": "kd",
        "temperature": cell.temperature,
        "weight": round(cell.weight, 4),
        "label_weight": round(1 - cell.weight, 4),
    }


def judge(
    preflight: Sequence[Finding], grid: Difficulty | None, held_out: int
) -> tuple[bool | None, str, dict[str, Any] | None]:
    """Whether distillation will help, why, and how.

    Args:
        preflight: the checks; a warning comes before any prediction.
        grid: the predicted errors, or None.
        held_out: samples they were counted on.

    Returns:
        `helps`, `words` and `method` of a `Diagnosis`.
    """
    broken = [f.name for f in preflight if f.level == "warning" and f.name in FATAL]
    if broken:
        return (
            False,
            f"Mend first: {', '.join(broken)}. A teacher read wrongly teaches noise.",
            None,
        )
    if grid is None:
        return None, "The student's difficulty could not be computed; see the notes.", None
    hard, best = hard_cell(grid), grid.best
    gain = hard.error - best.error
    doubt = math.sqrt(max(hard.error * (1 - hard.error), 1e-4) / held_out)
    numbers = (
        f"predicted error {best.error:.1%} at soft ratio {best.soft_ratio:g} and temperature "
        f"{best.temperature:g}, {hard.error:.1%} on the labels alone; the teacher errs on "
        f"{grid.teacher_error:.1%}"
    )
    if gain <= doubt:
        return (
            False,
            f"Distillation is unlikely to help here, because the student does as well on the "
            f"labels alone ({numbers}; differences below {doubt:.1%} are noise).",
            recommended(best),
        )
    return True, f"Distillation should help: {numbers}.", recommended(best)


FATAL = (
    "teacher's accuracy",
    "order of the classes",
    "teacher's preprocessing",
    "batch normalization",
)
