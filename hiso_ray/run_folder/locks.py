"""Files that one process holds at a time; the kernel lets go when it ends, however it does."""

from __future__ import annotations

import fcntl
import time
from typing import IO, Any

LOCK_SECONDS = 20.0  # a process that was killed a moment ago may not have let go yet


def hold(file: IO[Any], seconds: float = 0.0) -> bool:
    """Takes an open file, until it is closed.

    Args:
        seconds: how long to wait for whoever has it.

    Returns:
        Whether it is held now: not on a file system without locks.

    Raises:
        BlockingIOError: another process has it.
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
