"""Turns pydantic's reports into one sentence."""

from __future__ import annotations

from pydantic import ValidationError


def explain(error: ValidationError, prefix: str = "") -> str:
    """The first problem of a validation, with its dotted path; the others are counted."""
    problems = error.errors(include_url=False)
    first = problems[0]
    path = ".".join(str(part) for part in (prefix, *first["loc"]) if part != "")
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] not in ("value_error", "missing") and not isinstance(first["input"], dict):
        message = f"{message[0].lower()}{message[1:]}, got {first['input']!r}"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{path or 'recipe'}: {message}{more}"
