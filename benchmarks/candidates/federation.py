"""The product's federation as a laboratory sees it: a round's cohort can be asked for losses and
directions, and counts what it was asked.

All learning rates of a grid run side by side: weights are (rates, d), and what does not depend on
them (cohorts, minibatches, directions) is made once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiso_ray import Experiment, tasks
from hiso_ray.federation.partition import split
from hiso_ray.federation.sampling import cohort, minibatch
from hiso_ray.method.direction import Directions
from hiso_ray.method.naming import Naming
from hiso_ray.seeds import step_seeds
from hiso_ray.server.work_units import work_units
from hiso_ray.tasks.flat.batch import IGNORED, apart, client_means, own_means
from hiso_ray.tasks.images import stacked
from hiso_ray.tasks.images.image_sets import DIGITS
from hiso_ray.tasks.images.networks import network

KEPT = 1 << 28  # bytes of directions that a round may remember
SMOOTHED = 0.1  # examples added to each class of a client
REQUEST, SEED_AND_RATES, SCALAR = 16, 16, 4  # bytes, as ``federation.traffic`` counts them


@dataclass
class Counted:
    """What a method has used so far.

    Attributes:
        forwards: forward passes of all clients, each over one minibatch.
        up, down: protocol bytes of all clients, by the rule of ``federation.traffic``.
        seen: (num_clients,) bytes of records that each client holds.
        records: bytes of all records so far.
    """

    seen: np.ndarray
    forwards: int = 0
    up: int = 0
    down: int = 0
    records: int = 0

    def add(self, clients: np.ndarray, forwards: int, up: int, record: int) -> None:
        """Adds a round.

        Args:
            clients: of the cohort.
            forwards, up: of each client: forward passes, and scalars that it sends.
            record: scalars of the record that all clients receive before their next turn.
        """
        self.forwards += len(clients) * forwards
        self.up += SCALAR * len(clients) * up
        self.down += int((REQUEST + self.records - self.seen[clients]).sum())
        self.seen[clients] = self.records
        self.records += SEED_AND_RATES + SCALAR * record


@dataclass
class Cohort:
    """One round's clients. What it is asked is counted: ``forwards`` and ``up`` of each client, and
    ``record`` scalars for everyone."""

    federation: Federation
    round: int
    clients: np.ndarray
    forwards: int = 0
    up: int = 0
    record: int = 0
    calibrated: bool = False
    _bases: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def __post_init__(self) -> None:
        it = self.federation
        self.seed = step_seeds(it.experiment.seed, self.round, 1)[0]
        batch_size = it.experiment.task.batch_size
        own = {
            int(c): minibatch(
                it.experiment.seed, self.round, int(c), 0, it.partition.of(int(c)), batch_size
            )
            for c in self.clients
        }
        units = work_units(it.experiment, self.clients.tolist())
        self._batches = [it.task.batch(*(own[c] for c in unit)) for unit in units]
        self._own = [it.task.batch(examples) for examples in own.values()]
        self._whole = it.task.batch(*own.values())

    def shared(self, count: int) -> Tensor:
        """(P, d) directions of the whole cohort."""
        return self.federation.directions_of(Naming(count).of(self.seed, 0))

    def own(self, count: int) -> Tensor:
        """(m, P, d) directions of each client."""
        naming = Naming(count, shared=False)
        of = [self.federation.directions_of(naming.of(self.seed, int(c))) for c in self.clients]
        return torch.stack(of)

    def losses(self, x: Tensor) -> Tensor:
        """(rates, points, m) float64 losses of every client at (rates, points, d) weights."""
        self.forwards += x.shape[1]
        if self.calibrated:
            return self._calibrated(x)
        found = self.federation.losses_at(x.flatten(0, 1), self._batches)
        return found.view(*x.shape[:2], -1)

    def base(self, x: Tensor) -> Tensor:
        """(rates, m) float64 losses at (rates, d) weights; asked twice, counted once."""
        for weights, found in self._bases:
            if weights is x:
                return found
        self._bases.append((x, self.losses(x[:, None])[:, 0]))
        return self._bases[-1][1]

    def losses_of_each(self, x: Tensor) -> Tensor:
        """(rates, points, m) float64 losses of each client at points of its own,
        (rates, m, points, d)."""
        self.forwards += x.shape[2]
        several = self.federation.task.several
        if self.calibrated:
            return self._calibrated_each(x)
        if several is not None:
            found = [several.losses_of_each(some, self._whole) for some in x]
            return torch.from_numpy(np.stack(found))
        each = [
            self.federation.losses_at(x[:, i].flatten(0, 1), [batch]).view(len(x), -1)
            for i, batch in enumerate(self._own)
        ]
        return torch.stack(each, -1)

    def _calibrated(self, x: Tensor) -> Tensor:
        inputs, labels, sizes = self._whole
        shares = self.federation.log_shares[self.clients].repeat_interleave(torch.tensor(sizes), 0)
        out = []
        for some in x.flatten(0, 1).split(stacked.AT_ONCE):
            logits = self.federation.stacked.logits(some, inputs) + shares
            out.append(client_means(stacked.losses(logits, labels), sizes))
        return torch.cat(out).double().view(*x.shape[:2], -1)

    def _calibrated_each(self, x: Tensor) -> Tensor:
        index, real = apart(self._whole.sizes, x.device)
        clients, k = x.shape[1], x.shape[2]
        inputs = self._whole.inputs[index].repeat_interleave(k, 0)
        labels = torch.where(real, self._whole.labels[index], IGNORED).repeat_interleave(k, 0)
        shares = self.federation.log_shares[self.clients].repeat_interleave(k, 0)[:, None]
        out = []
        for some in x:
            logits = self.federation.stacked.logits(some.flatten(0, 1), inputs) + shares
            terms = stacked.losses(logits, labels).view(clients, k, -1)
            out.append(own_means(terms, real).T.double())
        return torch.stack(out)


class Federation:
    """A task and its clients.

    Args:
        experiment: its method is not read.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = tasks.resolve(experiment)
        self.prepared = tasks.prepare(self.experiment)
        self.partition = split(
            self.experiment.federation, self.prepared.labels, self.experiment.seed
        )
        self.sizes = np.diff(self.partition.offsets)
        self.task = tasks.build(self.experiment, self.prepared, torch.device("cpu"))
        self.x0 = torch.from_numpy(self.prepared.x0.copy())
        counts = self.partition.label_counts(self.prepared.labels, len(self.prepared.label_names))
        shares = (counts + SMOOTHED) / (counts + SMOOTHED).sum(1, keepdims=True)
        self.log_shares = torch.from_numpy(np.log(shares)).float()
        if self.experiment.task.name == "digits":
            self.stacked = stacked.Stacked(
                network(self.experiment.task.model, DIGITS), DIGITS.shape
            )
        self._directions = Directions(len(self.x0), torch.device("cpu"), KEPT)

    def cohort(self, round_: int, calibrated: bool = False) -> Cohort:
        self._directions.forget()
        clients = cohort(self.experiment.seed, round_, self.experiment.federation, self.sizes)
        return Cohort(self, round_, clients, calibrated=calibrated)

    def directions_of(self, names: Sequence[Any]) -> Tensor:
        whole = torch.empty(len(names), len(self.x0))
        for row, name in zip(whole, names, strict=True):
            for where, u in self._directions.chunks(name):
                row[where] = u
        return whole

    def losses_at(self, x: Tensor, batches: Sequence[Any]) -> Tensor:
        """(n, m) float64 at (n, d) weights."""
        several = self.task.several
        if several is None:
            return torch.from_numpy(np.stack([self.task.losses(row, batches) for row in x]))
        parts = [several.losses_at(some, batches) for some in x.split(several.at_once)]
        return torch.from_numpy(np.concatenate(parts))

    def score(self, x: Tensor) -> np.ndarray:
        """(n, 2) test loss and test accuracy of (n, d) weights."""
        out = []
        for row in x:
            scores = [self.task.score(row, b) for b in range(self.task.eval_batches)]
            losses = np.concatenate([s.losses for s in scores])
            hits = np.concatenate([s.points["accuracy"] for s in scores])
            out.append((losses.mean(), hits.mean()))
        return np.array(out)

    def counted(self) -> Counted:
        return Counted(np.zeros(len(self.sizes), np.int64))
