"""Name -> u ~ N(0, I_d): the directions every replica can rebuild from a 64-bit step seed.

A direction is *defined* as a stream: one generator, seeded from its name (``naming``), fills the
vector front to back in chunks of a fixed size. Nobody has to hold d floats to use it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from hiso_ray.method.naming import Name
from hiso_ray.seeds import direction_key

# 256 KiB of float32 keeps a chunk and its operands in a core's cache; a GPU wants long kernels.
CHUNK = {"cpu": 1 << 16, "cuda": 1 << 22}
SCHEME = 1  # of turning keys into generators; a change makes old ledgers unreadable, and says so

_MT_WORDS = 624
_MT_OFFSET = 24  # bytes before the words in torch's serialised Mersenne twister


def describe_generator(device: torch.device) -> dict[str, str | int]:
    """What decides the numbers a key gives; equal descriptions promise equal directions.

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
        "chunk": CHUNK[device.type],
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


class Directions:
    """The directions of one round, remembered while they fit a memory budget.

    Within a round each direction is needed for the probe and again for the update. Those that fit
    ``budget_bytes`` are kept, the others are generated again; the bits are the same.

    Args:
        dimension: d.
        device: where directions are generated and live.
        budget_bytes: memory that remembered directions may take.
    """

    def __init__(self, dimension: int, device: torch.device, budget_bytes: int) -> None:
        self.dimension, self.device = dimension, device
        self._capacity = budget_bytes // (4 * dimension)
        self._kept: dict[Name, Tensor] = {}

    def chunks(self, name: Name) -> Iterator[tuple[slice, Tensor]]:
        """Yields (slice of the flat vector, u on that slice), front to back.

        The tensor is float32 and only valid until the next one is asked for; do not write to it.
        """
        if name not in self._kept and len(self._kept) < self._capacity:
            whole = torch.empty(self.dimension, device=self.device)
            for where, u in self._generate(name):
                whole[where] = u
            self._kept[name] = whole
        if name in self._kept:
            kept = self._kept[name]
            return ((where, kept[where]) for where in self._slices())
        return self._generate(name)

    def norm(self, name: Name) -> float:
        """‖u‖₂."""
        return sum(float(torch.dot(u, u)) for _, u in self.chunks(name)) ** 0.5

    def forget(self) -> None:
        """Drops what is remembered; call it when the round's seeds change."""
        self._kept.clear()

    def _slices(self) -> Iterator[slice]:
        step = CHUNK[self.device.type]
        return (slice(i, min(i + step, self.dimension)) for i in range(0, self.dimension, step))

    def _generate(self, name: Name) -> Iterator[tuple[slice, Tensor]]:
        rng = stream(name, self.device)
        # torch draws normals in blocks of 16, so a short last chunk is drawn up to a whole block:
        # the direction is then the prefix of one long draw.
        scratch = torch.empty(
            min(CHUNK[self.device.type], -(-self.dimension // 16) * 16), device=self.device
        )
        for where in self._slices():
            length = where.stop - where.start
            scratch[: -(-length // 16) * 16].normal_(generator=rng)
            yield where, scratch[:length]
