"""The portable generator of directions: the same bits on every processor and GPU.

Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") turns a counter
and a key into four 32-bit words, with no state in between: any element of a direction can be made
alone, in any order, anywhere. Element i of a direction has word i mod 4 of counter
(⌊i/4⌋ mod 2^32, ⌊i/4⌋ / 2^32, id_2, id_3) under key (id_0, id_1), where id is 128 bits of the hash
of the direction's name. Two words make two normals (Box and Muller 1958), one word makes a sign.

Every step is integer arithmetic, or an operation whose rounding IEEE 754 defines (+, ·, √, ÷, fused
multiply-add), in a fixed order. So normals, too, agree to the last bit in all implementations:

``reference``   numpy, straight from the formulas: the others are checked against it
``compiled``    numba, for CPUs
``kernels``     Triton, for CUDA; ``fused`` calls them inside its passes over the weights
"""

from __future__ import annotations

import torch
from torch import Tensor

from hiso_ray.method.naming import Name
from hiso_ray.method.philox.streams import NAME, VERSION, Distribution, stream_id

__all__ = ["NAME", "VERSION", "Distribution", "fill", "has_triton", "prepare", "stream_id"]


def fill(out: Tensor, name: Name, start: int, distribution: Distribution) -> Tensor:
    """out[j] = element ``start + j`` of a direction.

    Args:
        out: (n,) float32, contiguous; on a GPU without Triton it is made on the CPU and copied.
    """
    if out.device.type == "cpu":
        from hiso_ray.method.philox import compiled

        compiled.filler(distribution)(out.numpy(), stream_id(name), start)
        return out
    if not has_triton():
        return out.copy_(fill(torch.empty(out.shape), name, start, distribution))
    from hiso_ray.method.philox import kernels

    return kernels.fill(out, name, start, distribution)


def prepare(device: torch.device, distribution: Distribution) -> None:
    """Compiles what :func:`fill` needs on a CPU, so that no round has to wait for it."""
    if device.type == "cpu":
        fill(torch.empty(1), (0,), 0, distribution)


def has_triton() -> bool:
    """Whether kernels for GPUs can be compiled here."""
    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    return True
