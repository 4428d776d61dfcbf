"""What a reproduction says: claims of a paper beside what was measured here. No torch."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class Scale:
    """How much work a reproduction does, and where.

    Attributes:
        seeds: trainings of each arm; None: as many as the claim's lines were drawn for.
        full: the larger setting, nearer to the paper's.
        device: "cpu" or "gpu" sets the size of the networks, where a claim knows both.
        share: part of the work, in (0, 1]; with less than all of it the lines say little.
        out: the folder for runs and results.
        workers: trainings side by side.
        report: told of progress, one line at a time.
    """

    out: Path
    seeds: int | None = None
    full: bool = False
    device: Literal["cpu", "gpu"] = "cpu"
    share: float = 1.0
    workers: int = 1
    report: Callable[[str], None] = lambda line: None


def part(count: int, share: float) -> int:
    """That share of `count`, at least one."""
    return max(1, round(share * count))


@dataclass(frozen=True)
class Claim:
    """One claim.

    Attributes:
        claim: in one sentence.
        paper: what the paper reports, in its own setting.
        ours: measured here.
        spread: standard deviation over seeds, 0 where there is one value.
        line: where the claim counts as shown; empty: a figure that stands beside the others.
        passed: None where there is no line.
    """

    claim: str
    paper: str
    ours: float
    spread: float
    line: str = ""
    passed: bool | None = None

    def as_json(self) -> dict[str, Any]:
        """The claim as plain data."""
        return {
            "claim": self.claim,
            "paper": self.paper,
            "ours": self.ours,
            "spread": self.spread,
            "line": self.line,
            "pass": self.passed,
        }


@dataclass(frozen=True)
class Evidence:
    """All claims of one reproduction."""

    name: str
    claims: Sequence[Claim]

    @property
    def passed(self) -> bool:
        """Whether no line was missed."""
        return all(claim.passed is not False for claim in self.claims)

    def as_json(self) -> dict[str, Any]:
        """The object that `limbeck reproduce --json` prints."""
        claims = [claim.as_json() for claim in self.claims]
        return {"name": self.name, "claims": claims, "passed": self.passed}


def spread(values: Sequence[float]) -> float:
    """The standard deviation over seeds; 0 for a single one."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def figure(claim: str, values: Sequence[float], paper: str = "") -> Claim:
    """A figure without a line."""
    return Claim(claim, paper, statistics.fmean(values), spread(values))


def at_least(
    claim: str, values: Sequence[float], least: float, *, paper: str = "", every: bool = False
) -> Claim:
    """A claim on the mean over seeds, and with `every` on the sign in each seed too."""
    mean = statistics.fmean(values)
    line = f"mean >= {least:g}" + (", > 0 in every seed" if every else "")
    passed = mean >= least and (not every or min(values) > 0)
    return Claim(claim, paper, mean, spread(values), line, passed)


def at_most(claim: str, values: Sequence[float], most: float, *, paper: str = "") -> Claim:
    """A claim on the largest value over seeds."""
    largest = max(values)
    return Claim(claim, paper, largest, spread(values), f"<= {most:g}", largest <= most)
