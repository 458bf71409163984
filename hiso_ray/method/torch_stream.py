"""Directions from torch's own generators: one generator per direction fills it front to back.

What these directions are depends on the device: the CPU's and CUDA's differ, and CUDA's between
GPU models. ``philox`` has none of that; with these, what was computed before it can be repeated.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from hiso_ray.method.naming import Name
from hiso_ray.seeds import direction_key

SCHEME = 1  # of turning keys into generators; a change makes old ledgers unreadable, and says so

_MT_WORDS = 624
_MT_OFFSET = 24  # bytes before the words in torch's serialised Mersenne twister


def describe(device: torch.device, chunk: int) -> dict[str, str | int]:
    """What decides the numbers a key gives.

    The CPU's Mersenne twister has been the same for years and with every vector width, but not
    without vectors; CUDA's numbers depend on torch, on the GPU model and on the chunk.
    """
    if device.type == "cpu":
        vectors = torch.backends.cpu.get_cpu_capability() not in ("DEFAULT", "NO AVX")
        name = "torch-cpu-vectorised" if vectors else "torch-cpu-plain"
        return {"name": name, "scheme": SCHEME}
    return {
        "name": f"torch-{device.type}",
        "scheme": SCHEME,
        "torch": torch.__version__,
        "hardware": torch.cuda.get_device_name(device),
        "chunk": chunk,
    }


def stream(name: Name, device: torch.device) -> torch.Generator:
    """The generator of a direction.

    On the CPU ``manual_seed`` keeps 32 bits of its argument, too few for the 10^5 directions of a
    long run to stay distinct, so the key fills the whole state of the Mersenne twister instead.
    """
    key = direction_key(*name)
    rng = torch.Generator(device)
    if device.type != "cpu":
        return rng.manual_seed(int(key.generate_state(1, np.uint64)[0]) >> 1)
    state = rng.get_state()
    words = np.random.Philox(key).random_raw(_MT_WORDS // 2).view(np.uint32)
    target = state.numpy()[_MT_OFFSET : _MT_OFFSET + 8 * _MT_WORDS].view(np.uint64)
    target[:] = words
    rng.set_state(state)
    return rng


def chunks(name: Name, slices: Iterator[slice], scratch: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """(slice, u on that slice), front to back, all in ``scratch``.

    Args:
        slices: of the whole vector; all but the last are multiples of 16 long.
        scratch: float32, as long as the longest slice, rounded up to a multiple of 16.
    """
    rng = stream(name, scratch.device)
    for where in slices:
        # torch draws normals in blocks of 16, so a short last chunk is drawn up to a whole block:
        # the direction is then the prefix of one long draw.
        length = where.stop - where.start
        scratch[: -(-length // 16) * 16].normal_(generator=rng)
        yield where, scratch[:length]
