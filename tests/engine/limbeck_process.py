"""The command in a process of its own, as a user starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from processes import heed_interrupts


class Command:
    """`limbeck WORDS` as a process of its own."""

    def __init__(self, plugin: Path) -> None:
        self.environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(plugin),
            "COLUMNS": "200",
        }

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "limbeck", *words],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=heed_interrupts,
        )

    def __call__(self, *words: str, status: int = 0) -> str:
        """Run to the end, check the status, and return what was said on standard error."""
        process = self.start(*words)
        out, error = process.communicate(timeout=120)
        assert process.returncode == status, error + out
        assert "Traceback" not in error
        return error
