"""What limbeck says when it cannot go on: one sentence, and an exit status for the command line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LimbeckError(Exception):
    """Base of what limbeck raises on purpose; the command ends with `exit_status`."""

    exit_status = 1


class InputError(LimbeckError, ValueError):
    """The user's input is wrong: refused before any long work starts (exit status 2)."""

    exit_status = 2


class RunError(LimbeckError, RuntimeError):
    """A run failed on its way: NaN, a full disk, a parity check (exit status 1)."""


def nearest(word: str, candidates: Iterable[str]) -> str:
    """``", did you mean 'x'?"`` for the candidate closest to `word`, else an empty string."""
    match = difflib.get_close_matches(word, list(candidates), n=1, cutoff=0.6)
    return f", did you mean {match[0]!r}?" if match else ""
