"""Directions: u, d independent elements that every replica can rebuild from a name.

Directions are streamed a chunk at a time, so using one does not take d floats of memory. There are
two generators: ``philox`` gives the same bits everywhere and can make any slice alone; ``torch``,
the framework's own, depends on the device and runs front to back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from hiso_ray.config.buffers import CHUNK
from hiso_ray.method import philox, torch_stream
from hiso_ray.method.naming import Name
from hiso_ray.method.philox import Distribution

Generator = Literal["philox", "torch"]


def describe_generator(generator: Generator, device: torch.device) -> dict[str, str | int]:
    """What determines a name's numbers; equal descriptions guarantee equal directions."""
    if generator == "philox":
        return {"name": philox.NAME, "version": philox.VERSION}
    return torch_stream.describe(device, CHUNK[device.type])


class Directions:
    """The directions of one round, remembered while they fit a memory budget.

    Within a round each direction is needed for the probe and again for the update. Those that fit
    ``budget_bytes`` are kept, the others are generated again; the bits are the same. GPUs keep
    none of philox's: they generate them faster than they could read them.

    Args:
        dimension: d.
        device: where directions are generated and live.
        budget_bytes: memory that remembered directions may take.
        generator: what makes them.
        distribution: of their elements; ``torch`` makes normals only.

    Attributes:
        fused: passes over the weights may generate directions inside one kernel (``method.fused``).
    """

    def __init__(
        self,
        dimension: int,
        device: torch.device,
        budget_bytes: int,
        generator: Generator = "philox",
        distribution: Distribution = "gaussian",
    ) -> None:
        assert generator == "philox" or distribution == "gaussian"
        self.dimension, self.device = dimension, device
        self.generator, self.distribution = generator, distribution
        philox_on_gpu = generator == "philox" and device.type == "cuda"
        self.fused = philox_on_gpu and philox.has_triton()
        self._capacity = 0 if philox_on_gpu else budget_bytes // (4 * dimension)
        self._kept: dict[Name, Tensor] = {}
        if generator == "philox":
            philox.prepare(device, distribution)

    def chunks(self, name: Name, part: slice | None = None) -> Iterator[tuple[slice, Tensor]]:
        """Yields (slice of the flat vector, u on that slice), front to back.

        The tensor is float32 and only valid until the next is requested; do not write to it.

        Args:
            part: slice of the vector, by default the whole, which is all that ``torch`` supports.
        """
        if name not in self._kept and len(self._kept) < self._capacity:
            self._kept[name] = self._whole(name)
        part = part or slice(0, self.dimension)
        if name in self._kept:
            kept = self._kept[name]
            return ((where, kept[where]) for where in self._slices(part))
        return self._generate(name, part)

    def block(self, names: Sequence[Name]) -> Tensor | None:
        """(names, d) float32 if the directions are short and all remembered, else None."""
        if self.dimension > CHUNK[self.device.type] or self._capacity < len(names):
            return None
        for name in names:
            if name not in self._kept and len(self._kept) < self._capacity:
                self._kept[name] = self._whole(name)
        found = [self._kept[name] for name in names if name in self._kept]
        return torch.stack(found) if len(found) == len(names) else None

    def norm(self, name: Name) -> float:
        """‖u‖₂."""
        return sum(float(torch.dot(u, u)) for _, u in self.chunks(name)) ** 0.5

    def forget(self) -> None:
        """Drops what is remembered; call it when the round's seeds change."""
        self._kept.clear()

    def _whole(self, name: Name) -> Tensor:
        whole = torch.empty(self.dimension, device=self.device)
        if self.generator == "philox":
            return philox.fill(whole, name, 0, self.distribution)
        for where, u in self._generate(name, slice(0, self.dimension)):
            whole[where] = u
        return whole

    def _slices(self, part: slice) -> Iterator[slice]:
        step = CHUNK[self.device.type]
        return (slice(i, min(i + step, part.stop)) for i in range(part.start, part.stop, step))

    def _generate(self, name: Name, part: slice) -> Iterator[tuple[slice, Tensor]]:
        length = min(CHUNK[self.device.type], part.stop - part.start)
        scratch = torch.empty(-(-length // 16) * 16, device=self.device)
        if self.generator == "torch":
            assert part == slice(0, self.dimension)
            return torch_stream.chunks(name, self._slices(part), scratch)
        return self._draw(name, part, scratch)

    def _draw(self, name: Name, part: slice, scratch: Tensor) -> Iterator[tuple[slice, Tensor]]:
        for where in self._slices(part):
            out = scratch[: where.stop - where.start]
            yield where, philox.fill(out, name, where.start, self.distribution)
