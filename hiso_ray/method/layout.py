"""How trainable tensors lie in the flat vector of weights x."""

from __future__ import annotations

import math
from collections.abc import Sequence

Layout = Sequence[tuple[str, tuple[int, ...]]]
"""(name, shape) of every trainable tensor, in the order of the flat vector."""


def dimension(layout: Layout) -> int:
    """d, the number of trainable weights."""
    return sum(math.prod(shape) for _, shape in layout)
