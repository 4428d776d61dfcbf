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

from limbeck.data import download
from limbeck.data.arrays import read_npz
from limbeck.errors import InputError, nearest

VARIABLE = "LIMBECK_DATA"
"""Names the folder in which the user has laid out data sets."""


@dataclass(frozen=True)
class NamedSet:
    """A public data set.

    Attributes:
        file: its name in the folder of `LIMBECK_DATA` and in the cache.
        download: writes it to a path; None where no library offers it.
        sums: SHA-256 of arrays where it is known, see `array_sum`.
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


def digits() -> dict[str, NDArray[Any]]:
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
        raise InputError(f"{_absent(name)}; no library offers it for download")
    part = target.with_name(f".{os.getpid()}.{target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        wanted.download(part)
        _verify(name, part)
        part.replace(target)
    except InputError:
        raise
    except Exception as error:  # a library's own: not installed, no network, a changed page
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{_absent(name)}, or run again with a network after pip install 'limbeck[hf]' "
            f"(the download said: {reason})"
        ) from None
    finally:
        part.unlink(missing_ok=True)
    return target


def _absent(name: str) -> str:
    folder = os.environ.get(VARIABLE)
    state = f"is {folder}" if folder else "is not set"
    return (
        f"data {name!r} is not here: put {NAMED[name].file} into a folder and name that with "
        f"export {VARIABLE}=FOLDER (it {state})"
    )


def _verify(name: str, path: Path) -> None:
    """Compare the arrays whose checksums are known."""
    sums = NAMED[name].sums if name in NAMED else None
    if not sums:
        return
    arrays = read_npz(path)
    for key, expected in sums.items():
        if key not in arrays or array_sum(arrays[key]) != expected:
            raise InputError(
                f"{path} is not {name}: the SHA-256 of its array {key!r} differs from the "
                "published data; replace the file, or give its path as the data to use it anyway"
            )


def array_sum(array: NDArray[Any]) -> str:
    """SHA-256 of pixels, uint8 of shape (N, H, W[, C]), or of labels, as uint8."""
    return hashlib.sha256(np.ascontiguousarray(array.astype(np.uint8)).data).hexdigest()


_CIFAR_TEST = {
    "x_test": "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
    "y_test": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
}
_CIFAR_20K = _CIFAR_TEST | {
    "x_train": "74493c77aca7915c5811a5d387566a9b045abbdd45f6636b12a6590eb540193c",
    "y_train": "095e2e1dc3fa589cf7b94cd735dd043548910fb6559baae0d9fc751e56026644",
}
_FASHION = {
    "x_train": "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
    "y_train": "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
    "x_test": "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
    "y_test": "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
}

NAMED: dict[str, NamedSet] = {
    "fashion-mnist": NamedSet("fashion-mnist.npz", download.fashion_mnist, _FASHION),
    "cifar10": NamedSet("cifar10.npz", download.cifar10, _CIFAR_TEST),
    "cifar10-20k": NamedSet("cifar10-20k.npz", download.cifar10_20k, _CIFAR_20K),
    "cifar100": NamedSet("cifar100.npz", download.cifar100),
    "agnews": NamedSet("agnews.parquet", download.agnews),
    "agnews-10k": NamedSet("agnews-10k.parquet"),
    "sst2": NamedSet("sst2.parquet", download.sst2),
    "adult": NamedSet("adult.parquet", download.adult),
    "mil-classic": NamedSet("mil-classic.npz"),
}
"""Public sets beside the built-in `digits`."""
