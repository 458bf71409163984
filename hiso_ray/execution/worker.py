"""What one process computes for the driver, from its replica and every client's examples.

The serial executor owns one worker and calls it; a client actor owns one and is called over Ray.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from hiso_ray import tasks
from hiso_ray.client.diagnostics import diagnose
from hiso_ray.client.out_of_memory import Batch, explained
from hiso_ray.client.projections import take_projections
from hiso_ray.client.replica import Replica
from hiso_ray.client.turns import take_turns
from hiso_ray.client.updates import take_updates
from hiso_ray.config import Experiment
from hiso_ray.config.schedule import record_rate
from hiso_ray.execution import gpu_memory
from hiso_ray.execution.memory import actor_gpu_bytes, states_bytes
from hiso_ray.federation.partition import Partition
from hiso_ray.messages import Description, Missed, Score, Snapshot, Turn
from hiso_ray.method.direction import describe_generator
from hiso_ray.record import Record
from hiso_ray.run_folder import files
from hiso_ray.seeds import step_seeds
from hiso_ray.server.work_units import Unit, clients_together, work_units
from hiso_ray.tasks import calibration
from hiso_ray.tasks.contract import Prepared


def device_for(experiment: Experiment) -> torch.device:
    """The GPU when the experiment asks for a share of one and torch sees one, else the CPU."""
    wanted = experiment.resources.gpus_per_client != 0 and torch.cuda.is_available()
    return torch.device("cuda" if wanted else "cpu")


class Worker:
    """A replica that takes turns and scores evaluation batches."""

    def __init__(self, experiment: Experiment, prepared: Prepared, partition: Partition) -> None:
        device = device_for(experiment)
        self._need = actor_gpu_bytes(experiment, *prepared.size)
        gpu_memory.check_memory(experiment, self._need, device)
        gpu_memory.cap(experiment, device)
        self.partition, self.frozen = partition, prepared.frozen
        self._arrays, examples = prepared.arrays, len(prepared.labels)
        with explained(experiment, device, "building the model"):
            task = tasks.build(experiment, prepared, device)
            if experiment.method.client_loss == "calibrated":
                offsets = calibration.offsets(prepared, partition)
                task.calibrate(offsets)  # type: ignore[attr-defined]
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
            triton=self.replica.directions.fused,
        )

    def catch_up(self, missed: Missed) -> None:
        """Must be called before any other request; see ``Replica.catch_up``."""
        with self._explained(f"bringing the weights to round {missed.round}"):
            self.replica.catch_up(missed)

    def snapshot(self, folder: Path, check: str) -> Snapshot | str:
        """Writes x and H into the run folder, or returns why this process cannot."""
        if not (folder.parent / files.LEDGER).exists():
            return f"{folder.parent} cannot be seen from the machine of a client actor"
        try:
            return self.replica.snapshot(folder, check)
        except OSError as error:
            return str(error)

    def turns(self, units: Sequence[Unit], seeds: Sequence[int]) -> list[list[Turn]]:
        """The turns of some of the cohort's work units, one list per unit. For methods that send
        weights, the first turn of a unit carries the sum of the unit's changes."""
        return self._turns(self.partition, units, seeds)

    def _turns(
        self, partition: Partition, units: Sequence[Unit], seeds: Sequence[int]
    ) -> list[list[Turn]]:
        where = f"clients {[client for unit in units for client in unit]}, round {self.round}"
        with self._explained(where, "batch_size"):
            if self.replica.experiment.sends_weights:
                return [take_updates(self.replica, partition, unit, seeds) for unit in units]
            if self.replica.blocks is not None:
                return [take_projections(self.replica, partition, unit, seeds) for unit in units]
            turns = iter(take_turns(self.replica, partition, units, seeds))
            return [list(islice(turns, len(unit))) for unit in units]

    def scores(self, batches: Sequence[int]) -> list[Score]:
        found = []
        for batch in batches:
            where = f"evaluation batch {batch}, round {self.round}"
            with self._explained(where, "eval_batch_size"):
                found.append(self.replica.score(batch))
        return found

    def statistics(self) -> dict[str, float]:
        return self.replica.statistics()

    def diagnose(self) -> dict[str, Any]:
        with self._explained(f"diagnostics of round {self.round}"):
            return diagnose(self.replica)

    def digest(self) -> str:
        return self.replica.digest()

    def _explained(self, where: str, batch: Batch | None = None) -> AbstractContextManager[None]:
        return explained(self.replica.experiment, self.replica.device, where, batch)

    def gpu_bytes(self) -> tuple[int, int] | None:
        """(peak GPU bytes that this process holds in a round with the heaviest possible minibatches
        and evaluation batch, bytes of the whole GPU); None on a CPU.

        No other process may use the GPU. Discard the worker afterwards: measuring changes its
        weights.
        """
        device, experiment = self.replica.device, self.replica.experiment
        if device.type != "cuda":
            return None
        task, federation = experiment.task, experiment.federation
        # Per-client directions are cached for as many clients as an actor may get.
        shared = self.replica.naming.shared or self.replica.directions.fused
        clients = range(
            min(clients_together(experiment), federation.clients_per_round)
            if shared or experiment.sends_weights
            else federation.clients_per_round
        )
        heavy = gpu_memory.heaviest_clients(
            self.partition, gpu_memory.lengths(self._arrays, "train"), task.batch_size, len(clients)
        )
        batch = gpu_memory.heaviest_batch(task, gpu_memory.lengths(self._arrays, "eval"))
        seeds = step_seeds(0, 0, experiment.record_steps)
        self._turns(heavy, work_units(experiment, clients), seeds)
        if not experiment.sends_weights:
            self.catch_up(Missed(1, [self._record(clients, seeds)]))
        self.scores([batch])
        if experiment.diagnostics.every:
            self.diagnose()
        held, total = gpu_memory.held_bytes(device)
        held += states_bytes(experiment)  # cached states grow from round to round
        return max(held, self._need), total

    def _record(self, clients: Sequence[int], seeds: Sequence[int]) -> Record:
        """A record whose scalars are all zero."""
        method = self.replica.experiment.method
        each = method.directions_per_step * (1 if self.replica.naming.shared else len(clients))
        zeros = ((0.0,) * each,) * len(seeds)
        return Record(
            round=0,
            cohort=tuple(clients),
            seeds=tuple(seeds),
            scalars=zeros,
            lr=record_rate(method, 0),
            mu=method.mu,
            hessian_retention=method.hessian_retention,
            hessian_eps=method.hessian_eps,
            train_loss=None,
            second=zeros if method.row.second_differences else (),
            momentum=method.momentum,
        )
