"""Maps a direction's name to its stream of random words."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np

from hiso_ray.method.naming import Name
from hiso_ray.seeds import direction_key

NAME, VERSION = "philox4x32-10", 1  # a change gives the same names other directions

Distribution = Literal["gaussian", "rademacher"]


@lru_cache(maxsize=1024)  # a pass asks once per chunk
def stream_id(name: Name) -> np.ndarray:
    """The 128 bits that identify a direction: (4,) uint32, read only."""
    found = direction_key(*name).generate_state(4, np.uint32)
    found.setflags(write=False)
    return found
