"""Processes as a user starts them."""

from __future__ import annotations

import signal


def heed_interrupts() -> None:
    """Let SIGINT through: what a shell starts in the background inherits that it is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
