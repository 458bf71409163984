"""What a run consists of, resolved once; ``run``, ``resume`` and ``replay`` share it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hiso_ray import tasks
from hiso_ray.config import Experiment, schedule
from hiso_ray.config.fits import check_dimension
from hiso_ray.execution.header import identity_of
from hiso_ray.federation import devices
from hiso_ray.federation.attendance import Population
from hiso_ray.federation.partition import Partition, split
from hiso_ray.tasks import evaluation
from hiso_ray.tasks.contract import Prepared

if TYPE_CHECKING:  # loads ray, which the serial executor does not need
    from hiso_ray.execution.cluster.shared import SharedTask


@dataclass(frozen=True)
class Setting:
    """One federation, with everything that its configuration refers to.

    Attributes:
        experiment: resolved: no ``auto`` in fields that affect results.
        prepared: data, x_0, and how the task is built from them.
        partition: who holds which training examples.
        population: each client's number of examples and its device.
        identity: digests of what decides the weights, for the ledger's header.
        evaluation_sha256: digest of the evaluation examples.
    """

    experiment: Experiment
    prepared: Prepared
    partition: Partition
    population: Population
    identity: dict[str, str]
    evaluation_sha256: str

    @property
    def counts(self) -> np.ndarray:
        """(num_clients, groups) examples of each group that each client holds."""
        prepared = self.prepared
        return self.partition.label_counts(prepared.labels, len(prepared.label_names))


def settle(
    experiment: Experiment, task: SharedTask | None = None, mask: np.ndarray | None = None
) -> Setting:
    """Resolves an experiment, and reads its data and weights.

    Args:
        task: the prepared task, if it is already in Ray's object store.
        mask: of the run folder, if it has one.

    Raises:
        UserError: the experiment is invalid; the text says why.
    """
    experiment = schedule.resolve(devices.resolve(tasks.resolve(experiment)))
    prepared = tasks.prepare(experiment, mask) if task is None else task.fetch()
    partition = split(experiment.federation, prepared.labels, experiment.seed)
    population = Population(np.diff(partition.offsets), devices.of(experiment))
    check_dimension(experiment, prepared.x0.size)
    identity = identity_of(experiment, prepared, population)
    return Setting(
        experiment, prepared, partition, population, identity, evaluation.digest(prepared)
    )
