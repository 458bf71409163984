"""Exclusive file locks; the kernel releases them when the process ends, even if killed."""

from __future__ import annotations

import fcntl
import time
from typing import IO, Any

LOCK_SECONDS = 20.0  # a process killed a moment ago may still hold its lock


def hold(file: IO[Any], seconds: float = 0.0) -> bool:
    """Locks an open file until it is closed.

    Args:
        seconds: how long to wait for another process to release it.

    Returns:
        Whether it is locked now; False on a file system without locks.

    Raises:
        BlockingIOError: another process holds it.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.2)
        except OSError:
            return False
