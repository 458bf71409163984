"""What one process computes for the driver: a replica, every client's examples, and the answers.

The serial executor owns one worker and calls it; a client actor owns one and is called over Ray.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hiso_ray import tasks
from hiso_ray.client import take_turns
from hiso_ray.client_updates import take_updates
from hiso_ray.config import Experiment
from hiso_ray.diagnostics import diagnose
from hiso_ray.execution.placement import actor_bytes
from hiso_ray.messages import Description, Missed, Score, Snapshot, Turn, UserError
from hiso_ray.method.direction import describe_generator
from hiso_ray.replica import Replica
from hiso_ray.seeds import step_seeds
from hiso_ray.tasks.contract import Prepared
from hiso_ray.tasks.partition import Partition


def device_for(experiment: Experiment) -> torch.device:
    """The GPU when the experiment asks for a share of one and torch sees one, else the CPU."""
    wanted = experiment.resources.gpus_per_client != 0 and torch.cuda.is_available()
    return torch.device("cuda" if wanted else "cpu")


def threads_for(experiment: Experiment) -> int:
    """Torch threads of a process: one per whole CPU it holds, at least one."""
    return max(1, int(experiment.resources.cpus_per_client))


@contextmanager
def torch_threads(experiment: Experiment) -> Iterator[None]:
    """Computes with as many threads as an actor would: sums change bits with the thread count."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads_for(experiment))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def check_memory(experiment: Experiment, need: int, device: torch.device) -> None:
    """Fails with words before a GPU share runs out of memory somewhere else.

    Raises:
        UserError: the share of the GPU that the actor holds is smaller than what it needs.
    """
    given = experiment.resources.gpus_per_client
    if device.type != "cuda" or given == "auto":
        return
    whole = torch.cuda.get_device_properties(device).total_memory
    share = min(1.0, given)
    if need > whole * share:
        raise UserError(
            f"an actor needs about {need / 2**30:.1f} GiB, its {share:g} of this GPU is "
            f"{whole * share / 2**30:.1f} GiB: raise resources.gpus_per_client to "
            f"{math.ceil(100 * need / whole) / 100:g} or more, or take a smaller model, LoRA "
            "(task.lora.r 8), or task.dtype bfloat16"
        )


class Worker:
    """A replica that takes turns and scores evaluation batches."""

    def __init__(self, experiment: Experiment, prepared: Prepared, partition: Partition) -> None:
        device = device_for(experiment)
        check_memory(experiment, actor_bytes(experiment, prepared.x0.size, prepared.frozen), device)
        self.partition, self.frozen = partition, prepared.frozen
        task, examples = tasks.build(experiment, prepared, device), len(prepared.labels)
        self.replica = Replica(experiment, task, prepared.x0, device, examples)

    @property
    def round(self) -> int:
        return self.replica.round

    def describe(self) -> Description:
        device = self.replica.device
        cuda = device.type == "cuda"
        kind = (
            torch.cuda.get_device_name(device) if cuda else torch.backends.cpu.get_cpu_capability()
        )
        return Description(
            device=f"{device.type} {kind}",
            torch=torch.__version__,
            threads=torch.get_num_threads(),
            generator=describe_generator(self.replica.directions.generator, device),
            dimension=self.replica.state.x.numel(),
            frozen=self.frozen,
            eval_batches=self.replica.task.eval_batches,
        )

    def catch_up(self, missed: Missed) -> None:
        """Before anything else is asked: see ``Replica.catch_up``."""
        self.replica.catch_up(missed)

    def snapshot(self, folder: Path, check: str) -> Snapshot | str:
        """Writes x and H into the run folder, or says why that cannot be done from here."""
        if not (folder.parent / "ledger.jsonl").exists():
            return f"{folder.parent} cannot be seen from the machine of a client actor"
        try:
            return self.replica.snapshot(folder, check)
        except OSError as error:
            return str(error)

    def turns(self, clients: Sequence[int], seeds: Sequence[int]) -> list[Turn]:
        """One turn each; where weights travel, the clients are a piece of the cohort whose sum the
        first of them carries."""
        take = take_updates if self.replica.experiment.sends_weights else take_turns
        return take(self.replica, self.partition, clients, seeds)

    def scores(self, batches: Sequence[int]) -> list[Score]:
        return [self.replica.score(batch) for batch in batches]

    def statistics(self) -> dict[str, float]:
        return self.replica.statistics()

    def diagnose(self) -> dict[str, Any]:
        return diagnose(self.replica)

    def digest(self) -> str:
        return self.replica.digest()

    def gpu_bytes(self) -> tuple[int, int] | None:
        """What this process holds of its GPU after a turn of the client with most examples and an
        evaluation batch, and what the GPU has; None on a CPU. It must have the GPU to itself.

        torch keeps the memory it once had, so what is held afterwards is the peak.
        """
        device = self.replica.device
        if device.type != "cuda":
            return None
        seeds = step_seeds(0, 0, self.replica.experiment.federation.local_steps)
        largest = int(np.diff(self.partition.offsets).argmax())
        self.turns([largest], seeds)
        self.scores([0])
        torch.cuda.synchronize(device)
        free, total = torch.cuda.mem_get_info(device)
        return total - free, total
