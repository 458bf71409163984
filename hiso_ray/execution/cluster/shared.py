"""A prepared task in Ray's object store, array by array, shared by any number of runs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import ray

if TYPE_CHECKING:  # imports torch, which the driver does not need
    from hiso_ray.tasks.contract import Prepared

NOTHING = np.empty(0, np.float32)
Shared = tuple["SharedTask", ray.ObjectRef]
"""What every client actor is built from: the task, and a reference to the partition."""


@dataclass(frozen=True)
class SharedTask:
    """Small to send: holds references to arrays, which a node reads without copying.

    Attributes:
        rest: the task without its arrays and x_0.
        arrays: of the examples.
        x0: (d,) float32.
    """

    rest: ray.ObjectRef
    arrays: dict[str, ray.ObjectRef]
    x0: ray.ObjectRef

    def fetch(self) -> Prepared:
        """The task; its arrays are read-only memory of the object store."""
        names = list(self.arrays)
        wanted = [self.rest, self.x0, *(self.arrays[name] for name in names)]
        rest, x0, *arrays = ray.get(wanted)
        return replace(rest, arrays=dict(zip(names, arrays, strict=True)), x0=x0)


def publish(prepared: Prepared, put: Callable[[np.ndarray], ray.ObjectRef] = ray.put) -> SharedTask:
    """Puts a task into the object store."""
    rest = ray.put(replace(prepared, arrays={}, x0=NOTHING))
    arrays = {name: put(array) for name, array in prepared.arrays.items()}
    return SharedTask(rest, arrays, put(prepared.x0))


class Once:
    """Puts equal arrays into the store once, even if many tasks hold them (seeds sharing data)."""

    def __init__(self) -> None:
        self._references: dict[str, ray.ObjectRef] = {}

    def __call__(self, array: np.ndarray) -> ray.ObjectRef:
        content = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
        content.update(np.ascontiguousarray(array).data)
        key = content.hexdigest()
        if key not in self._references:
            self._references[key] = ray.put(array)
        return self._references[key]
