"""A process keeps to its share of a GPU's memory.

Ray shares a GPU out by number and holds nobody to it. Each process caps itself: what torch's
allocator may hold is the share less what CUDA takes beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch

from hiso_ray.client.out_of_memory import smaller
from hiso_ray.config import Experiment, TaskConfig
from hiso_ray.errors import UserError
from hiso_ray.execution.memory import CONTEXT
from hiso_ray.federation.partition import Partition
from hiso_ray.tasks.evaluation import batches


def share_of(experiment: Experiment) -> float:
    """The part of a GPU's memory that a process may hold, at most 1; all of it for ``auto``, which
    is a whole GPU until it has been measured."""
    given = experiment.resources.gpus_per_client
    return 1.0 if given == "auto" else min(1.0, given)


def check_memory(experiment: Experiment, need: int, device: torch.device) -> None:
    """Fails with words before a GPU share runs out of memory somewhere else.

    Args:
        need: bytes of the GPU, CUDA's own included; see ``memory.actor_gpu_bytes``.

    Raises:
        UserError: the share of the GPU that the process may hold, or all of the GPU, is smaller
            than what it needs.
    """
    if device.type != "cuda":
        return
    whole = torch.cuda.get_device_properties(device).total_memory
    share = share_of(experiment)
    if need <= whole * share:
        return
    less = ", or ".join(smaller(experiment))
    needs = f"an actor needs about {need / 2**30:.1f} GiB ({CONTEXT / 2**30:.1f} of it CUDA's own)"
    if need > whole:
        raise UserError(f"{needs}, and this GPU has {whole / 2**30:.1f} GiB: {less}")
    raise UserError(
        f"{needs}, its {share:g} of this GPU is {whole * share / 2**30:.1f} GiB: raise "
        f"resources.gpus_per_client to {math.ceil(100 * need / whole) / 100:g} or more, or {less}"
    )


def cap(experiment: Experiment, device: torch.device) -> None:
    """Holds this process to its share; with a whole GPU, lifts the cap of an earlier run here.

    Call it before anything is allocated and after :func:`check_memory`, which says what to do about
    a share that CUDA alone fills.
    """
    if device.type != "cuda":
        return
    share, whole = share_of(experiment), torch.cuda.get_device_properties(device).total_memory
    fraction = 1.0 if share == 1 else share - CONTEXT / whole
    assert fraction > 0
    torch.cuda.set_per_process_memory_fraction(fraction)  # of the current device, as "cuda" is


def held_bytes(device: torch.device) -> tuple[int, int]:
    """What a process that has a GPU to itself has held of it at most, and what the GPU has.

    What torch's allocator does not hold is CUDA's own, and counts as no less than the cap leaves
    for it: then a cap of these bytes leaves torch what it has held.
    """
    torch.cuda.synchronize(device)
    free, total = torch.cuda.mem_get_info(device)
    own = total - free - torch.cuda.memory_reserved(device)
    return torch.cuda.max_memory_reserved(device) + max(CONTEXT, own), total


def lengths(arrays: Mapping[str, np.ndarray], split: str) -> np.ndarray | None:
    """(n,) tokens of each example of a split ("train" or "eval"), or None where all examples are
    alike; sequences are stored with their offsets, and a batch is as long as its longest one."""
    offsets = [
        array
        for name, array in arrays.items()
        if name.startswith(f"{split}_") and name.endswith("_offsets")
    ]
    return np.sum([np.diff(array) for array in offsets], axis=0) if offsets else None


def heaviest_clients(
    partition: Partition, train: np.ndarray | None, batch_size: int, clients: int
) -> Partition:
    """Made-up clients whose every minibatch is as large and as long as a minibatch can be.

    Args:
        train: lengths of the training examples, if they differ.
        clients: how many, all alike.
    """
    size = min(batch_size, int(np.diff(partition.offsets).max()))
    order = partition.examples if train is None else np.argsort(train, kind="stable")[::-1]
    offsets = np.arange(clients + 1, dtype=np.int64) * size
    return Partition(np.tile(order[:size], clients), offsets)


def heaviest_batch(config: TaskConfig, evaluation: np.ndarray | None) -> int:
    """The evaluation batch with most padded tokens, from the lengths of its examples."""
    if evaluation is None:
        return 0
    parts = [evaluation[part.start : part.stop] for part in batches(config, len(evaluation))]
    return int(np.argmax([len(part) * part.max() for part in parts]))
