"""Public data sets by name: built in, laid out in a folder, cached, or downloaded."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limbeck.errors import InputError, nearest

Arrays = dict[str, NDArray[Any]]
Rows = list[dict[str, Any]]

VARIABLE = "LIMBECK_DATA"
"""Names the folder in which the user has laid out data sets."""


@dataclass(frozen=True)
class NamedSet:
    """A public data set.

    Attributes:
        file: its name in the folder of `LIMBECK_DATA` and in the cache.
        download: writes it to a path; None where no library offers it.
        sums: SHA-256 of arrays that are known, over their bytes as (N, H, W[, C]) uint8, or
            int64 for labels.
    """

    file: str
    download: Callable[[Path], None] | None = None
    sums: Mapping[str, str] | None = None


def cache_folder() -> Path:
    """Where downloads are kept: `$XDG_CACHE_HOME/limbeck`, by default `~/.cache/limbeck`."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "limbeck"


def find_named(name: str) -> Path:
    """The file of the data set `name`, downloaded if need be.

    A name that is not in `NAMED` may stand for `$LIMBECK_DATA/NAME.npz` or `.parquet`.

    Raises:
        InputError: unknown, neither here nor to be had, or not what its checksum says.
    """
    files = [NAMED[name].file] if name in NAMED else [f"{name}.npz", f"{name}.parquet"]
    places = [Path(folder) for folder in (os.environ.get(VARIABLE), cache_folder()) if folder]
    for place, file in itertools.product(places, files):
        if (place / file).is_file():
            _verify(name, place / file)
            return place / file
    if name not in NAMED:
        known = ", ".join(["digits", *NAMED])
        raise InputError(
            f"unknown data {name!r}{nearest(name, ['digits', *NAMED])}: no such file, no "
            f"{files[0]} in the folder named by {VARIABLE}, and no public set (known: {known})"
        )
    return _download(name)


def digits() -> Arrays:
    """scikit-learn's 1,797 handwritten digits, 8 x 8 pixels in [0, 1].

    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998.
    """
    from sklearn.datasets import load_digits

    found = load_digits()
    x = (found.images / 16).astype(np.float32)[:, None]
    return {"x": x, "y": found.target.astype(np.int64)}


def _download(name: str) -> Path:
    """Fetch into the cache; a half-written file never gets its final name."""
    wanted = NAMED[name]
    target = cache_folder() / wanted.file
    if wanted.download is None:
        raise InputError(_absent(name, "no library offers it for download"))
    part = target.with_name(f".{os.getpid()}.{target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        wanted.download(part)
        _verify(name, part)
        part.replace(target)
    except InputError:
        raise
    except ImportError:
        raise InputError(_absent(name, "its download needs pip install 'limbeck[hf]'")) from None
    except Exception as error:  # a library's own errors: no network, no such host, a changed page
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(_absent(name, f"its download failed ({reason})")) from None
    finally:
        part.unlink(missing_ok=True)
    return target


def _absent(name: str, reason: str) -> str:
    folder = os.environ.get(VARIABLE)
    state = f"now {folder}" if folder else "not set"
    return (
        f"data {name!r} is not here, and {reason}: lay {NAMED[name].file} out in a folder and run "
        f"again with {VARIABLE}=FOLDER ({VARIABLE} is {state}), or run limbeck with a network"
    )


def _verify(name: str, path: Path) -> None:
    """Compare the arrays whose checksums are known."""
    sums = NAMED[name].sums if name in NAMED else None
    if not sums:
        return
    from limbeck.data.arrays import read_npz

    arrays = read_npz(path)
    for key, expected in sums.items():
        if key not in arrays or array_sum(arrays[key]) != expected:
            raise InputError(
                f"{path} is not {name}: the SHA-256 of its array {key!r} differs from the "
                "published data; replace the file, or give its path as the data to use it anyway"
            )


def array_sum(array: NDArray[Any]) -> str:
    """SHA-256 of the bytes of pixels (as they are) or labels (as int64)."""
    plain = array.astype(np.int64) if array.ndim == 1 else array
    return hashlib.sha256(np.ascontiguousarray(plain).data).hexdigest()
