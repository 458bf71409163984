"""What a replica reports: statistics of H, and the digest that names the bits of its weights."""

from __future__ import annotations

import hashlib

from torch import Tensor

from hiso_ray.method.layout import Layout
from hiso_ray.tasks.contract import views

SAMPLE = 1 << 16  # elements of H from which its median is estimated


def statistics(h: Tensor) -> dict[str, float]:
    """H's min, median and max; the median is taken over at most 65 536 evenly spaced elements.

    Args:
        h: (n,) its values.
    """
    sample = h[:: -(-h.numel() // SAMPLE)]
    return {
        "h_min": float(h.min()),
        "h_median": float(sample.median()),
        "h_max": float(h.max()),
    }


def weights_sha256(x: Tensor, layout: Layout) -> str:
    """SHA-256 over the float32 bytes of the trainable tensors, in the order of their names."""
    tensors = views(x.cpu(), layout)
    sha = hashlib.sha256()
    for name in sorted(tensors):
        sha.update(tensors[name].contiguous().numpy().tobytes())
    return sha.hexdigest()
