"""Directions from torch's own generators: one generator per direction fills it front to back.

These directions depend on the device: CPU and CUDA differ, and so do GPU models. ``philox``
directions do not; this generator remains to repeat runs made before ``philox``.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from hiso_ray.method.naming import Name
from hiso_ray.seeds import direction_key

SCHEME = 1  # version of the key-to-generator scheme; after a change old ledgers are refused

_MT_WORDS = 624
_MT_OFFSET = 24  # bytes before the words in torch's serialised Mersenne twister


def describe(device: torch.device, chunk: int) -> dict[str, str | int]:
    """What determines a key's numbers.

    The CPU's Mersenne twister has not changed in years and does not depend on the vector width, but
    gives other numbers without vector instructions; CUDA's depend on torch, the GPU model
    and the chunk.
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
