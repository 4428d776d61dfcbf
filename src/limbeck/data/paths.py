"""What a data source may be called. Torch is not imported here."""

from __future__ import annotations

from pathlib import Path

from limbeck.errors import InputError

SUFFIXES = (".npz", ".csv", ".parquet")


def is_name(source: str) -> bool:
    """Whether `source` can only be the name of a data set: no path, and nothing stands there."""
    path = Path(source)
    return not (path.exists() or path.suffix or path.name != source)


def check_source(source: str) -> None:
    """Refuse a path that does not exist; names are looked up later."""
    if not is_name(source):
        check_path(Path(source))


def check_path(path: Path) -> None:
    """Refuse what does not exist, or is of no kind that can be read.

    Raises:
        InputError: says which of the two.
    """
    if not path.exists():
        near = "" if path.parent.is_dir() else f" (and no folder {path.parent})"
        raise InputError(f"no file or folder {path}{near}")
    if not path.is_dir() and path.suffix not in SUFFIXES:
        raise InputError(
            f"{path} is of no kind that can be read; data is an .npz, .csv or .parquet file, or a "
            "folder of images"
        )
