"""The cache folder for files that can be recreated, kept from run to run."""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path


def cache() -> Path:
    """``HISO_RAY_CACHE``, or a folder in the user's home; without a writable home (containers with
    an arbitrary user), a folder that is removed when this process ends."""
    given = os.environ.get("HISO_RAY_CACHE")
    return Path(given) if given else _of_the_user() or Path(_of_the_process().name)


def _of_the_user() -> Path | None:
    try:
        folder = Path.home() / ".cache" / "hiso_ray"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: this user has no home
        return None
    return folder if os.access(folder, os.W_OK) else None


@functools.cache
def _of_the_process() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="hiso_ray-", ignore_cleanup_errors=True)
