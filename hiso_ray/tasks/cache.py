"""Where what can be made again is kept from run to run."""

from __future__ import annotations

import os
from pathlib import Path


def cache() -> Path:
    """``HISO_RAY_CACHE``, or a folder in the user's home."""
    given = os.environ.get("HISO_RAY_CACHE")
    return Path(given or Path.home() / ".cache" / "hiso_ray")
