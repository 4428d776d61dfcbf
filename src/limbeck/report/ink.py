"""How figures are drawn: colors that follow the page's light or dark scheme, and clean SVG.

Matplotlib draws with stand-in colors that no figure uses otherwise; in the SVG each is
replaced by a CSS variable, so that one drawing serves both schemes.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TEXT, MUTED, GRID, PAPER = "#a1b2d0", "#a1b2d1", "#a1b2d2", "#a1b2d3"
_NAMES = {TEXT: "--text", MUTED: "--muted", GRID: "--line", PAPER: "--paper"}
_COLORS = 6  # hues of the palette in the style sheet, after Okabe and Ito (2008)
_DASHES: tuple[Any, ...] = ("solid", (0, (4, 1.5)), (0, (1.5, 1.5)))
_MARKERS = "osD^vP"

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "limbeck",
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same layout on every machine
    "font.size": 10,
    "text.color": TEXT,
    "axes.labelcolor": TEXT,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": TEXT,
    "ytick.labelcolor": TEXT,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
}


@dataclass(frozen=True)
class Ink:
    """The color, dash and marker of one arm in all figures."""

    name: str
    color: str
    dash: Any
    marker: str


def inks(arms: Iterable[str]) -> dict[str, Ink]:
    """An ink an arm; `none` is always gray and `teacher` always in the color of the text."""
    chosen = {}
    others = 0
    for arm in arms:
        if arm == "none":
            chosen[arm] = Ink(arm, MUTED, (0, (5, 2)), "X")
        elif arm == "teacher":
            chosen[arm] = Ink(arm, TEXT, (0, (1, 1.5)), "*")
        else:
            hue, turn = others % _COLORS, others // _COLORS
            dash = _DASHES[turn % len(_DASHES)]
            chosen[arm] = Ink(arm, f"#a1b2c{hue}", dash, _MARKERS[(hue + turn) % len(_MARKERS)])
            others += 1
    return chosen


@contextmanager
def _style() -> Iterator[None]:
    """Our look on top of matplotlib's own defaults, whatever the user's matplotlibrc says."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def panel(width: float = 4.5, height: float = 3.1) -> tuple[Figure, Axes]:
    """An empty figure of the given size in inches, with one set of axes."""
    from matplotlib.figure import Figure

    with _style():
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots()


def svg(figure: Figure, label: str) -> str:
    """The figure as inline SVG: no fixed size, no ids that nothing refers to, no clock.

    Args:
        figure: drawn with stand-in colors.
        label: what it shows, for those who cannot see it.
    """
    buffer = io.BytesIO()
    with _style():
        figure.savefig(
            buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    return _clean(buffer.getvalue().decode(), label)


def _clean(text: str, label: str) -> str:
    view = re.search(r'viewBox="[^"]*"', text)
    body = text[text.index(">", text.index("<svg")) + 1 :].strip()
    body = re.sub(r"<metadata>.*?</metadata>\s*", "", body, flags=re.S)
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body)
    body = re.sub(r' transform="rotate\(-0 [^"]*\)"', "", body)
    body = re.sub("#a1b2c([0-9])", r"var(--arm-\1)", body)
    for color, name in _NAMES.items():
        body = body.replace(color, f"var({name})")
    return f'<svg {view[0] if view else ""} role="img" aria-label="{html.escape(label)}">{body}'


def swatch(ink: Ink) -> str:
    """A short line with its marker, for the legend."""
    figure, axes = panel(0.42, 0.16)
    axes.set_axis_off()
    axes.plot([0, 1, 2], [0, 0, 0], color=ink.color, ls=ink.dash, marker=ink.marker, markevery=[1])
    axes.margins(0, 1)
    return svg(figure, ink.name)
