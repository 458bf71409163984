"""Caps each process at its share of a GPU's memory.

Ray assigns GPU shares but does not enforce them. Each process caps itself: torch's allocator may
hold the share minus what CUDA uses outside the allocator.
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
    """The fraction of a GPU's memory that a process may hold, at most 1; 1 for ``auto``, which
    uses a whole GPU until the need is measured."""
    given = experiment.resources.gpus_per_client
    return 1.0 if given == "auto" else min(1.0, given)


def check_memory(experiment: Experiment, need: int, device: torch.device) -> None:
    """Fails early, with advice, if a GPU share is too small.

    Args:
        need: GPU bytes of an actor, CUDA's own included; see ``memory.actor_gpu_bytes``.

    Raises:
        UserError: the process needs more than its share of the GPU, or more than the whole GPU.
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
    """Caps this process at its share; with a whole GPU, lifts an earlier run's cap.

    Call it before any allocation, and after :func:`check_memory`, which reports a share that CUDA
    alone fills.
    """
    if device.type != "cuda":
        return
    share, whole = share_of(experiment), torch.cuda.get_device_properties(device).total_memory
    fraction = 1.0 if share == 1 else share - CONTEXT / whole
    assert fraction > 0
    torch.cuda.set_per_process_memory_fraction(fraction)  # of the current device, like "cuda"


def held_bytes(device: torch.device) -> tuple[int, int]:
    """(peak bytes that this process held, bytes of the whole GPU); no other process may use it.

    Memory outside torch's allocator is CUDA's own. It counts as at least ``CONTEXT``, which
    :func:`cap` subtracts from the share, so that a share of this size leaves torch its peak.
    """
    torch.cuda.synchronize(device)
    free, total = torch.cuda.mem_get_info(device)
    own = total - free - torch.cuda.memory_reserved(device)
    return torch.cuda.max_memory_reserved(device) + max(CONTEXT, own), total


def lengths(arrays: Mapping[str, np.ndarray], split: str) -> np.ndarray | None:
    """(n,) tokens of each example of a split ("train" or "eval"); None if all examples are equally
    long. Sequences are stored with their offsets; a batch is as long as its longest sequence."""
    offsets = [
        array
        for name, array in arrays.items()
        if name.startswith(f"{split}_") and name.endswith("_offsets")
    ]
    return np.sum([np.diff(array) for array in offsets], axis=0) if offsets else None


def heaviest_clients(
    partition: Partition, train: np.ndarray | None, batch_size: int, clients: int
) -> Partition:
    """Synthetic clients, whose minibatches all have the largest possible size and length.

    Args:
        train: lengths of the training examples, if they differ.
        clients: their number; all have the same examples.
    """
    size = min(batch_size, int(np.diff(partition.offsets).max()))
    order = partition.examples if train is None else np.argsort(train, kind="stable")[::-1]
    offsets = np.arange(clients + 1, dtype=np.int64) * size
    return Partition(np.tile(order[:size], clients), offsets)


def heaviest_batch(config: TaskConfig, evaluation: np.ndarray | None) -> int:
    """Number of the evaluation batch with the most padded tokens, given the examples' lengths."""
    if evaluation is None:
        return 0
    parts = [evaluation[part.start : part.stop] for part in batches(config, len(evaluation))]
    return int(np.argmax([len(part) * part.max() for part in parts]))
