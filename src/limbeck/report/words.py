"""Numbers as people read them: the same spelling in the terminal, in Markdown and in HTML."""

from __future__ import annotations

from typing import Any

PERCENT = ("accuracy", "agreement", "top5", "f1")
"""Metrics in [0, 1] that are shown in percent."""

NOTHING = "–"
_NAMES = {"nll": "NLL", "ece": "ECE", "f1": "F1", "top5": "top-5", "brier": "Brier"}
_PLACES = {
    "test": "test",
    "val": "validation",
    "data": "data",
    "best": "best epoch",
    "last": "last epoch",
}


def split_key(key: str) -> tuple[str, str]:
    """A key such as `best.test.accuracy` as (place, metric); a metric's name may have dots."""
    parts = key.split(".")
    depth = next((i for i, part in enumerate(parts) if part not in _PLACES), len(parts))
    return ".".join(parts[:depth]), ".".join(parts[depth:])


def place(names: str) -> str:
    """`best.test` in words."""
    return ", ".join(_PLACES.get(part, part) for part in names.split("."))


def name(metric: str) -> str:
    """A metric's name."""
    return _NAMES.get(metric, metric)


def title(metric: str) -> str:
    """A metric's name with its unit."""
    return f"{name(metric)} %" if metric in PERCENT else name(metric)


def scaled(value: float, metric: str) -> float:
    """The number in the unit that it is shown in."""
    return 100 * value if metric in PERCENT else value


def number(value: float | None, metric: str) -> str:
    """A metric's value, without its unit."""
    if value is None:
        return NOTHING
    if metric in PERCENT:
        return f"{100 * value:.2f}"
    return f"{value:.3f}" if metric in _NAMES else f"{value:.4g}"


def percent(value: float, metric: str) -> str:
    """A metric's value with its unit."""
    return f"{number(value, metric)} %" if metric in PERCENT else number(value, metric)


def reached(value: float, metric: str) -> str:
    """A metric's value with its unit and name: `95.31 % accuracy`, `0.212 NLL`."""
    return f"{percent(value, metric)} {name(metric)}"


def interval(mean: float | None, half: float | None, metric: str) -> str:
    """A mean with the half-width of its interval."""
    text = number(mean, metric)
    return text if half is None else f"{text} ± {number(half, metric)}"


def signed(difference: float, metric: str) -> str:
    """A difference with its sign, in percentage points for metrics in percent."""
    text = number(abs(difference), metric)
    return f"{'−' if difference < 0 else '+'}{text}"


def gap(difference: float, metric: str) -> str:
    """A difference with its sign and unit."""
    return f"{signed(difference, metric)}{' points' if metric in PERCENT else ''}"


def p_value(p: float) -> str:
    """A probability; tiny ones as a bound."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def p_phrase(p: float) -> str:
    """A probability in a sentence: `p = 0.012`, `p < 0.001`."""
    return "p < 0.001" if p < 0.001 else f"p = {p_value(p)}"


def count(value: int | None) -> str:
    """How many, in thousands (k) or millions (M) once it is large."""
    if value is None:
        return NOTHING
    for size, unit in ((1_000_000, "M"), (10_000, "k")):
        if value >= size:
            return f"{value / (size if unit == 'M' else 1000):.3g} {unit}"
    return f"{value:,}"


def milliseconds(value: float | None) -> str:
    """A latency in ms with three digits."""
    if value is None:
        return NOTHING
    digits = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f}"


def size(value: int | None) -> str:
    """Bytes as kB or MB."""
    if value is None:
        return NOTHING
    return f"{value / 1e6:.3g} MB" if value >= 1e6 else f"{value / 1e3:.3g} kB"


def sentence(text: str) -> str:
    """The text with a capital at its beginning."""
    return text[:1].upper() + text[1:]


def method(spec: Any) -> str:
    """The name of a method, or of the terms of a sum, as the card has them."""
    terms = spec if isinstance(spec, list) else [spec]
    return " + ".join(str(term["name"]) for term in terms)


def ratio(whole: float, part: float) -> str:
    """How many times smaller `part` is than `whole`."""
    times = whole / part
    return f"{times:.0f}×" if times >= 9.5 else f"{times:.1f}×"
