"""Which stream of random words is a direction's."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np

from hiso_ray.method.naming import Name
from hiso_ray.seeds import direction_key

NAME, VERSION = "philox4x32-10", 1  # a change makes other directions of the same names

Distribution = Literal["gaussian", "rademacher"]


@lru_cache(maxsize=1024)  # a pass asks once for every chunk
def identity(name: Name) -> np.ndarray:
    """The 128 bits that tell a direction from all others: (4,) uint32, read only."""
    found = direction_key(*name).generate_state(4, np.uint32)
    found.setflags(write=False)
    return found
