"""What to tell the user when a GPU, an actor's share of one, or a machine runs out of memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from hiso_ray.config import Experiment
from hiso_ray.config.fits import whole_only
from hiso_ray.config.resources import even_share
from hiso_ray.errors import UserError
from hiso_ray.server.work_units import clients_together

if TYPE_CHECKING:  # the driver needs only the advice, and must not load torch
    import torch

Batch = Literal["batch_size", "eval_batch_size"]


def is_full(error: Exception) -> bool:
    """Whether a GPU ran out of memory in torch's allocator or in CUDA and its libraries, whose
    errors have no type of their own."""
    import torch

    own = ("CUDA error: out of memory", "ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in own)
    )


def larger_share(share: float) -> float:
    """The next larger share, with which one actor fewer fits on a GPU."""
    return even_share(max(1, int(1 / share + 1e-9) - 1))


def smaller(experiment: Experiment) -> list[str]:
    """Advice that makes the model take less memory."""
    task = experiment.task
    ways = ["take a smaller model" + (" or LoRA (task.lora.r 8)" if task.lora.r == 0 else "")]
    if task.dtype == "float32":
        ways.append("use task.dtype bfloat16 (now float32)")
    if experiment.resources.probe_weights == "whole" and not whole_only(experiment):
        ways.append("use resources.probe_weights layer (now whole)")
    if task.frozen_layers != "recompute":
        budget = experiment.resources.frozen_states_mb
        ways.append(f"lower resources.frozen_states_mb (now {budget:g})")
    return ways


def less_on_machine(experiment: Experiment, actors: int, batch: Batch | None) -> list[str]:
    """Advice that makes a run use less of its machines' memory.

    Args:
        actors: number of actors in the run.
        batch: as in :func:`out_of_memory`.
    """
    resources, ways = experiment.resources, []
    if resources.clients_per_actor != "auto":
        each = resources.clients_per_actor
        ways.append(f"raise resources.clients_per_actor (now {each}): fewer actors")
    elif actors > 1:
        ways.append(f"lower resources.max_actors (now {actors} actors)")
    if resources.gpus_per_client != 0:  # batches and perturbed weights are on the GPU
        return [*ways, "take a smaller model"]
    return ways + _shorter(experiment, batch) + smaller(experiment)


def _shorter(experiment: Experiment, batch: Batch | None) -> list[str]:
    """Advice that makes a batch smaller."""
    task = experiment.task
    if batch is None:
        return []
    ways = [f"lower task.{batch} (now {getattr(task, batch)})"]
    if batch == "batch_size" and clients_together(experiment) > 1:
        ways.append(f"lower task.clients_per_forward (now {task.clients_per_forward})")
    if task.max_length != "auto":
        ways.append(f"lower task.max_length (now {task.max_length})")
    return ways


def out_of_memory(
    experiment: Experiment,
    device: torch.device,
    where: str,
    error: Exception,
    batch: Batch | None = "batch_size",
) -> UserError:
    """The error to show the user: where it happened, how much memory the actor has, what to change.

    Args:
        device: the GPU.
        where: what was computed, for which clients.
        batch: the task option that sets the batch size, if there was a batch.
    """
    import torch

    share = experiment.resources.gpus_per_client
    whole = torch.cuda.get_device_properties(device).total_memory
    may = f"the actor had this whole GPU, {whole / 2**30:.1f} GiB"
    todo = []
    if share != "auto" and share < 1:
        may = f"the actor's share, {share:g} of this GPU, is {whole * share / 2**30:.1f} GiB"
        todo.append(
            f"raise resources.gpus_per_client to {larger_share(share):g} (one actor fewer on each "
            "GPU) or to auto, which measures a round"
        )
    todo += _shorter(experiment, batch) + smaller(experiment)
    reason = str(error).partition(" If reserved")[0]  # what follows is advice on torch's settings
    return UserError(f"out of GPU memory: {where}: {may}; {', or '.join(todo)}. torch: {reason}")


@contextmanager
def explained(
    experiment: Experiment, device: torch.device, where: str, batch: Batch | None = None
) -> Iterator[None]:
    """Replaces torch's error; see :func:`out_of_memory`.

    Raises:
        UserError: the GPU, or the actor's share of it, is full.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_full(error):
            raise
        raise out_of_memory(experiment, device, where, error, batch) from error
