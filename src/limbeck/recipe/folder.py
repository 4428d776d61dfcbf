"""The run folder: one place for everything that a run leaves, written by one process at a time."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import IO, Any

from limbeck.errors import InputError, RunError


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RunError(f"cannot write {path}: {error.strerror}") from None


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file that a run wrote.

    Raises:
        InputError: no such file, or it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except ValueError:
        raise InputError(f"cannot read {path}: it is not JSON") from None


class Lines:
    """An append-only file of JSON lines.

    Args:
        path: the file.
        writer: whether this process writes it; otherwise every call does nothing.
    """

    def __init__(self, path: Path, writer: bool) -> None:
        self.path = path
        self._file: IO[bytes] | None = path.open("ab") if writer else None

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return self._file.tell() if self._file else 0

    def append(self, value: dict[str, Any]) -> None:
        """Add one line; it is in the file when this returns."""
        if self._file:
            try:
                self._file.write(json.dumps(value).encode() + b"\n")
                self._file.flush()
            except OSError as error:
                raise RunError(f"cannot write {self.path}: {error.strerror}") from None

    def truncate(self, size: int) -> None:
        """Cut off what stands after `size` bytes."""
        if self._file:
            self._file.truncate(size)
            self._file.seek(size)

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()


class RunFolder:
    """The folder of one run.

    Args:
        path: created where it does not exist.
        resume: whether a run that stands there may be gone on with.
        writer: whether this process writes; of several ranks only the first does.

    Raises:
        InputError: a run stands there already, or another process is writing it.
    """

    def __init__(self, path: Path, *, resume: bool = False, writer: bool = True) -> None:
        self.path = path
        self.writer = writer
        self._lock: IO[bytes] | None = None
        if writer:
            self._claim(resume)
        self.metrics = Lines(path / "metrics.jsonl", writer)
        self.timing = Lines(path / "timing.jsonl", writer)

    def _claim(self, resume: bool) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"--out {self.path} is a file; name a folder")
        if (self.path / "recipe.yaml").exists() and not resume:
            raise InputError(
                f"a run stands in {self.path} already; go on with it by --resume {self.path}, or "
                f"name another folder with --out"
            )
        try:
            (self.path / "checkpoints").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot create the folder {self.path}: {error.strerror}") from None
        self._lock = _lock(self.path / "lock", self.path)

    def checkpoint(self, name: str) -> Path:
        """Where the checkpoint `last` or `best` lies."""
        return self.path / "checkpoints" / f"{name}.safetensors"

    def write(self, name: str, value: Any) -> None:
        """Write a JSON file into the folder."""
        if self.writer:
            write_json(self.path / name, value)

    def close(self) -> None:
        """Release the folder."""
        self.metrics.close()
        self.timing.close()
        if self._lock:
            self._lock.close()


def _lock(path: Path, folder: Path) -> IO[bytes]:
    """Hold the folder; the system lets go of it however this process ends."""
    import fcntl

    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise InputError(f"another process is writing the run in {folder}; wait for it") from None
    return file
