"""A run's name on Ray, whose names and tags are ASCII."""

from __future__ import annotations

import os
import string
from pathlib import Path
from urllib.parse import quote

KEPT = string.punctuation.replace("%", "") + " "


def label_of(folder: Path) -> str:
    """A run folder's name, with non-ASCII characters percent-encoded: ``lauf-%C3%BC``."""
    return quote(os.fsencode(folder.name), safe=KEPT)
