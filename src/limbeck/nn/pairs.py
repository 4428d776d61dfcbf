"""Which modules of two networks to compare: their stages, paired by depth and resolution."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from limbeck.errors import InputError

Shapes = Mapping[str, tuple[int, ...]]
"""Module path to the shape of its output for one sample, in the order of the calls."""

BLOCKS = 4
"""How many of a transformer's blocks count as its stages."""


def choose_taps(student: Shapes, teacher: Shapes) -> list[tuple[str, str]]:
    """Pairs of stages, the shallowest first; the last pair is that of the last stages.

    Every stage of the network that has fewer is paired, in order, with the stage of the other
    that is nearest: in resolution where both give maps, else in relative depth.

    Args:
        student: the student's modules, see `Shapes`.
        teacher: the teacher's.

    Raises:
        InputError: a network without any intermediate module.
    """
    ours, theirs = stages(student, "student"), stages(teacher, "teacher")
    if len(ours) > len(theirs):
        return [(ours[j], theirs[i]) for i, j in _align(theirs, ours, teacher, student)]
    return [(ours[i], theirs[j]) for i, j in _align(ours, theirs, student, teacher)]


def _align(
    few: Sequence[str], many: Sequence[str], few_shapes: Shapes, many_shapes: Shapes
) -> list[tuple[int, int]]:
    """Positions in `few` with positions in `many`: increasing, the last with the last, nearest."""

    def distance(i: int, j: int) -> float:
        one, other = few_shapes[few[i]], many_shapes[many[j]]
        if len(one) > 2 and len(other) > 2:
            return abs(math.log2(_positions(one) / _positions(other)))
        return abs((i + 1) / len(few) - (j + 1) / len(many))

    last = len(many) - 1
    choices = itertools.combinations(range(last - 1, -1, -1), len(few) - 1)
    best = min(
        ([*reversed(choice), last] for choice in choices),
        key=lambda picked: sum(distance(i, j) for i, j in enumerate(picked)),
    )
    return list(enumerate(best))


def stages(shapes: Shapes, owner: str = "model") -> list[str]:
    """The modules after which a network's features are compared, the shallowest first.

    Of maps the last module at each resolution, of tokens up to four evenly spaced blocks, of
    vectors the hidden layers.

    Raises:
        InputError: the network has no module before its output.
    """
    inner = hidden(shapes)
    found = _map_stages(inner) or _token_stages(inner) or _vector_stages(inner)
    if not found:
        raise InputError(
            f"the {owner} has no module between input and output that could be tapped; "
            f"`limbeck taps MODEL` lists its modules"
        )
    return found


def penultimate(shapes: Shapes, owner: str = "model") -> str:
    """The last module before the classifier.

    Raises:
        InputError: the network has no module before its output.
    """
    inner = hidden(shapes)
    if not inner:
        return stages(shapes, owner)[-1]
    return next(reversed(inner))


def hidden(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """All modules but the last, which gives the logits, and those inside that give the same."""
    paths = list(shapes)
    while paths:
        last = paths.pop()
        if not paths or not paths[-1].startswith(f"{last}.") or shapes[paths[-1]] != shapes[last]:
            break
    return {path: shapes[path] for path in paths}


def _map_stages(shapes: Shapes) -> list[str]:
    """The last module of each resolution, no deeper in the module tree than it takes.

    The first resolution may be missed for a flatter choice: in a network whose stages halve, it
    is that of the first convolution alone.
    """
    maps = {path: shape for path, shape in shapes.items() if len(shape) > 2}
    resolutions = list(dict.fromkeys(shape[1:] for shape in maps.values()))
    found: dict[tuple[int, ...], str] = {}
    for depth in range(8):
        # Later modules overwrite earlier ones: the last of each resolution stays.
        found = {s[1:]: path for path, s in maps.items() if path.count(".") <= depth}
        if found and found.keys() >= set(resolutions[1:]):
            break
    chosen = [path for path in maps if path in found.values()]
    if len(chosen) > 1 and _only_pools(maps[chosen[-2]], maps[chosen[-1]]):
        chosen.pop()
    return chosen


def _only_pools(before: tuple[int, ...], last: tuple[int, ...]) -> bool:
    return _positions(last) == 1 and before[0] == last[0]


def _token_stages(shapes: Shapes) -> list[str]:
    """The last, and up to three evenly spaced earlier ones, of the numbered blocks."""
    tokens = [path for path, shape in shapes.items() if len(shape) == 2]
    groups: dict[str, list[str]] = {}
    for path in tokens:
        parent, _, name = path.rpartition(".")
        if name.isdigit():
            groups.setdefault(parent, []).append(path)
    blocks = max(groups.values(), key=len, default=tokens[-1:])
    count = min(BLOCKS, len(blocks))
    return [blocks[math.ceil((i + 1) * len(blocks) / count) - 1] for i in range(count)]


def _vector_stages(shapes: Shapes) -> list[str]:
    """The hidden layers; a first module that only flattens the sample is none."""
    least = min((path.count(".") for path in shapes), default=0)
    layers = [path for path in shapes if path.count(".") == least]
    first, *others = layers or [""]
    if others and all(shapes[first] > shapes[path] for path in others):
        return others
    return layers


def _positions(shape: tuple[int, ...]) -> int:
    return math.prod(shape[1:])
