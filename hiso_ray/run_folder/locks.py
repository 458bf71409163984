"""Exclusive file locks; the kernel releases them when the process ends, even if killed."""

from __future__ import annotations

import fcntl
import time
from pathlib import Path
from typing import IO, Any

LOCK_SECONDS = 20.0  # a process killed a moment ago may still hold its lock
GLANCE_SECONDS = 1.0  # :func:`is_held` holds a lock for less than that


def hold(file: IO[Any], seconds: float = GLANCE_SECONDS) -> bool:
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


def is_held(path: Path) -> bool:
    """Whether a process of this machine has locked the file; False if that cannot be seen, as with
    a copy of it.

    Looking takes a shared lock for a moment, which is why :func:`hold` is patient.
    """
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
