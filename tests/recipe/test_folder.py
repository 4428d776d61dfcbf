"""The run folder: whole files, lines that can be cut off, one writer at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from limbeck.errors import InputError, RunError
from limbeck.recipe.folder import Lines, RunFolder, read_json, write_json, write_text


def test_lines_are_cut_off_and_go_on(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "m.jsonl", writer=True)
    lines.append({"step": 1})
    size = lines.sync()
    lines.append({"step": 2})
    lines.truncate(size)
    lines.append({"step": 3})
    lines.close()
    assert (tmp_path / "m.jsonl").read_text() == '{"step": 1}\n{"step": 3}\n'


def test_who_does_not_write_leaves_nothing(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", writer=False)
    folder.metrics.append({"step": 1})
    folder.write("card.json", {})
    folder.close()
    assert not (tmp_path / "run").exists()


def test_a_run_that_stands_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("seed: 0\n")
    with pytest.raises(InputError, match=f"stands in .* already.*--resume {tmp_path}"):
        RunFolder(tmp_path)
    RunFolder(tmp_path, resume=True).close()


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file; name a folder"):
        RunFolder(tmp_path / "file")


def test_another_process_holds_the_folder(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from limbeck.recipe.folder import RunFolder\n"
        "folder = RunFolder(pathlib.Path(sys.argv[1])); print('held', flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(InputError, match="another process is writing"):
            RunFolder(tmp_path / "run", resume=True)
        holder.kill()
        holder.wait()
    RunFolder(tmp_path / "run", resume=True).close()


def test_the_log_keeps_what_was_said(tmp_path: Path) -> None:
    import logging

    folder = RunFolder(tmp_path / "run")
    logging.getLogger("limbeck").info("resumed at step %d", 3)
    folder.close()
    logging.getLogger("limbeck").info("after the end")
    text = (tmp_path / "run" / "log.txt").read_text()
    assert text.endswith(" INFO resumed at step 3\n")


def test_json_there_and_back(tmp_path: Path) -> None:
    write_json(tmp_path / "deep" / "a.json", {"b": [1, None]})
    assert read_json(tmp_path / "deep" / "a.json") == {"b": [1, None]}
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(InputError, match=r"bad\.json: it is not JSON"):
        read_json(tmp_path / "bad.json")
    with pytest.raises(InputError, match=r"none\.json: No such file"):
        read_json(tmp_path / "none.json")


def test_a_full_disk_keeps_the_old_file(tmp_path: Path) -> None:
    """/dev/full is a disk without room; a child process works where files may not grow."""
    code = (
        "import resource, pathlib, sys\n"
        "from limbeck.errors import RunError\n"
        "from limbeck.recipe.folder import Lines, write_text\n"
        "place = pathlib.Path(sys.argv[1])\n"
        "lines = Lines(place / 'm.jsonl', True)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "for write in (lambda: write_text(place / 'a.txt', 'new' * 100),\n"
        "              lambda: lines.append({'long': 'x' * 300})):\n"
        "    try: write()\n"
        "    except RunError as error: print(error)\n"
        "lines.close()\n"
    )
    write_text(tmp_path / "a.txt", "old")
    said = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert len(said) == 2
    assert "a.txt: File too large" in said[0]
    assert "m.jsonl" in said[1]
    assert (tmp_path / "a.txt").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "m.jsonl"]


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write"):
        write_text(tmp_path / "file" / "a.txt", "x")
