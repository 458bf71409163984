"""Torch's threads, whose number changes the bits of sums."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hiso_ray.config import Experiment


def threads_for(experiment: Experiment) -> int:
    """Torch threads of a process: one per whole CPU it holds, at least one."""
    return max(1, int(experiment.resources.cpus_per_client))


@contextmanager
def torch_threads(experiment: Experiment) -> Iterator[None]:
    """Uses as many threads as an actor would."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads_for(experiment))
    try:
        yield
    finally:
        torch.set_num_threads(before)
