"""The run folder: one place for everything that a run leaves, written by one process at a time."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from pathlib import Path
from typing import IO, Any

from limbeck.errors import InputError, RunError

_logger = logging.getLogger("limbeck")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, flush it to disk, then rename it.

    Raises:
        RunError: the disk is full or not writable; the file that stood there before survives.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise RunError(
            f"cannot write {path}: {error.strerror or error}; what stood there before is "
            f"untouched, make room and resume"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    write_bytes(path, text.encode())


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
        self._file = path.open("ab", buffering=0) if writer else None

    def sync(self) -> int:
        """Wait until the file is on the disk, and return how many bytes it has."""
        if not self._file:
            return 0
        os.fsync(self._file.fileno())
        return self._file.tell()

    def append(self, value: dict[str, Any]) -> None:
        """Add one line; it is in the file when this returns.

        Raises:
            RunError: the disk is full or not writable.
        """
        if self._file:
            line = json.dumps(value).encode() + b"\n"
            try:
                written = self._file.write(line)
            except OSError as error:
                raise RunError(f"cannot write {self.path}: {error.strerror}") from None
            if written != len(line):
                raise RunError(f"cannot write {self.path}: the disk is full; make room and resume")

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
        self._log = _log_to(path / "log.txt") if writer else None
        self.metrics = Lines(path / "metrics.jsonl", writer)
        self.timing = Lines(path / "timing.jsonl", writer)

    def _claim(self, resume: bool) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"--out {self.path} is a file; name a folder")
        try:
            (self.path / "checkpoints").mkdir(parents=True, exist_ok=True)
            self._lock = hold(self.path / "lock", self.path)
        except OSError as error:
            raise InputError(f"cannot write to the folder {self.path}: {error.strerror}") from None
        # Looked for under the lock, or two that start at once could both find the folder free.
        if (self.path / "recipe.yaml").exists() and not resume:
            self._lock.close()
            raise InputError(
                f"a run stands in {self.path} already; go on with it by --resume {self.path}, or "
                f"name another folder with --out"
            )

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
        if self._log:
            _logger.removeHandler(self._log)
            self._log.close()
        if self._lock:
            self._lock.close()


def _log_to(path: Path) -> logging.Handler:
    """Keep what limbeck logs in a file; warnings are shown to the user all the same."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    if not _logger.hasHandlers() and logging.lastResort is not None:
        _logger.addHandler(logging.lastResort)
    _logger.addHandler(handler)
    _logger.setLevel(logging.INFO)
    return handler


def hold(path: Path, folder: Path) -> IO[bytes]:
    """Hold the folder; the system lets go of it however this process ends.

    Raises:
        InputError: another process holds it.
    """
    import fcntl

    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise InputError(f"another process is writing in {folder}; wait for it") from None
    return file
