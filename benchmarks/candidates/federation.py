"""The product's federation as a laboratory sees it: a round's cohort can be asked for losses and
directions, and counts what it was asked.

All learning rates of a grid run side by side: weights are (rates, d), and what does not depend on
them (cohorts, minibatches, directions) is made once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from candidates.counting import Counted
from candidates.losses import Losses
from hiso_ray import Experiment, tasks
from hiso_ray.federation.partition import split
from hiso_ray.federation.sampling import cohort, minibatch
from hiso_ray.method.direction import Directions
from hiso_ray.method.naming import Name, Naming
from hiso_ray.seeds import step_seeds
from hiso_ray.tasks import calibration
from hiso_ray.tasks.contract import Task


class Federation:
    """A task and its clients.

    Args:
        experiment: of its method only ``mu`` is read.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = tasks.resolve(experiment)
        self.prepared = tasks.prepare(self.experiment)
        self.partition = split(
            self.experiment.federation, self.prepared.labels, self.experiment.seed
        )
        self.sizes = np.diff(self.partition.offsets)
        self.task = tasks.build(self.experiment, self.prepared, torch.device("cpu"))
        self._dtype = getattr(torch, self.experiment.task.dtype)
        self.x0 = torch.from_numpy(self.prepared.x0.copy())
        self._directions = Directions(len(self.x0), torch.device("cpu"), 0)

    @property
    def counts(self) -> np.ndarray:
        """(num_clients, classes) examples of each class that each client holds."""
        prepared = self.prepared
        return self.partition.label_counts(prepared.labels, len(prepared.label_names))

    def counted(self) -> Counted:
        return Counted(np.zeros(len(self.sizes), np.int64))

    def losses(self, calibrated: bool) -> Losses:
        return Losses(self.calibrated if calibrated else self.task, self._dtype)

    @cached_property
    def calibrated(self) -> Task:
        """The task with ``method.client_loss calibrated``."""
        task = tasks.build(self.experiment, self.prepared, torch.device("cpu"))
        task.calibrate(calibration.offsets(self.prepared, self.partition))
        return task

    def directions(self, names: Sequence[Name]) -> Tensor:
        """(names, d)"""
        rows = torch.empty(len(names), len(self.x0))
        for row, name in zip(rows, names, strict=True):
            for where, u in self._directions.chunks(name):
                row[where] = u
        return rows

    def score(self, x: Tensor) -> list[tuple[float, float]]:
        """Test loss and test accuracy at each of (n, d) weights."""
        out = []
        for row in x.to(self._dtype):
            scores = [self.task.score(row, b) for b in range(self.task.eval_batches)]
            losses = np.concatenate([s.losses for s in scores])
            hits = np.concatenate([s.points["accuracy"] for s in scores])
            out.append((float(losses.mean()), float(hits.mean())))
        return out


@dataclass
class Cohort:
    """One round's clients, their minibatches and their directions.

    Attributes:
        minibatches: example indices of each client.
        forwards, up: counted so far, of each client: forward passes, and scalars that it sends.
        record: counted so far: scalars that everyone receives.
    """

    federation: Federation
    losses_of: Losses
    round: int
    forwards: int = 0
    up: int = 0
    record: int = 0

    def __post_init__(self) -> None:
        it, r = self.federation, self.round
        seed, batch_size = it.experiment.seed, it.experiment.task.batch_size
        self.clients = cohort(seed, r, it.experiment.federation, it.sizes)
        self.minibatches = [
            minibatch(seed, r, c, 0, it.partition.of(c), batch_size) for c in self.clients.tolist()
        ]
        self._seed = step_seeds(seed, r, 1)[0]
        self._base: tuple[Tensor, Tensor] | None = None

    @property
    def mu(self) -> float:
        return self.federation.experiment.method.mu

    def shared(self, count: int) -> Tensor:
        """(P, d) directions of the whole cohort."""
        return self.federation.directions(Naming(count).of(self._seed, 0))

    def own(self, count: int) -> Tensor:
        """(m, P, d) directions of each client."""
        names = Naming(count, shared=False).of_record(self._seed, self.clients.tolist())
        return self.federation.directions(names).view(len(self.clients), count, -1)

    def losses(self, x: Tensor) -> Tensor:
        """(rates, points, m) float64 losses of every client at (rates, points, d) weights."""
        self.forwards += x.shape[1]
        found = self.losses_of.at(x.flatten(0, 1), self.minibatches)
        return found.view(*x.shape[:2], -1)

    def base(self, x: Tensor) -> Tensor:
        """(rates, m) float64 losses at (rates, d) weights; asked twice, counted once."""
        if self._base is None or self._base[0] is not x:
            self._base = x, self.losses(x[:, None])[:, 0]
        return self._base[1]

    def losses_of_each(self, x: Tensor) -> Tensor:
        """(rates, points, m) float64 losses of each client at points of its own,
        (rates, m, points, d)."""
        self.forwards += x.shape[2]
        each = [self.losses_of.of_each(some, self.minibatches) for some in x]
        return torch.stack(each)
