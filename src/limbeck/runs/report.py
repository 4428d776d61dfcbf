"""Reports need samples to show: this finds them in the data of the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from limbeck.data.base import Data, Split
from limbeck.errors import LimbeckError
from limbeck.recipe import yaml
from limbeck.recipe.spec import DataSpec

Images = Callable[[list[int]], NDArray[np.float32]]


def report(folder: str | Path, *, data: Any = None) -> Path:
    """Write the HTML report of a run or a comparison, and return its path.

    Args:
        folder: of the run or the comparison.
        data: what it was trained on, for the pictures; found by the recipe where not given.

    Raises:
        InputError: no finished run there.
    """
    from limbeck.report.html import write_report

    return write_report(folder, **sample_sources(_data(Path(folder), data)))


def _data(folder: Path, data: Any) -> Data | None:
    """The run's data; a report can do without it, since it only adds pictures."""
    from limbeck.data.load import load_data

    if data is not None:
        return load_data(data)
    try:
        recipe = yaml.read(folder / "recipe.yaml")
        return load_data(DataSpec.model_validate(recipe["data"]))
    except (LimbeckError, ValueError, KeyError):
        return None


def sample_sources(data: Data | None) -> dict[str, Any]:
    """The arguments `images` and `pool` of `write_report` for this data."""
    if data is None or data.kind != "image":
        return {}
    split = data.val if data.test is None else data.test
    found = {"images": _images(split)}
    if data.pool is not None:
        shown, row = _images(data.pool), {int(one): n for n, one in enumerate(data.pool.ids)}
        found["pool"] = lambda ids: shown([row[one] for one in ids])
    return found


def _images(split: Split) -> Images:
    """Images of a split by position, (N, C, H, W) in [0, 1]."""

    def images(rows: list[int]) -> NDArray[np.float32]:
        x = split.fetch(torch.tensor(rows))["x"].cpu()
        scaled = x.float() / 255 if x.dtype == torch.uint8 else x.float()
        array: NDArray[np.float32] = scaled.clamp(0, 1).numpy()
        return array

    return images
