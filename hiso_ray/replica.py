"""(x, H) at a round: one replica per process, brought forward by records, never by weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hiso_ray import snapshots
from hiso_ray.config import Experiment
from hiso_ray.ledger import Record
from hiso_ray.messages import Behind, Missed, Score, Snapshot
from hiso_ray.method.curvature import initial
from hiso_ray.method.direction import Directions
from hiso_ray.method.scalar import Probe, State, apply_record
from hiso_ray.tasks.contract import Layout, Task, views

STATISTICS_SAMPLE = 1 << 16  # elements of H whose median stands for all


class Replica:
    """The shared model as one process sees it.

    Memory: x and one buffer for perturbed weights (in the forward dtype), H if the method has one,
    and the remembered directions; with several local steps one more d for a client's local x.

    Attributes:
        round: r, the number of records applied.
        buffer: (d,) where probes build perturbed weights.
    """

    def __init__(self, experiment: Experiment, task: Task, x0: np.ndarray, device: torch.device):
        self.experiment, self.task, self.device = experiment, task, device
        # A copy of its own: x0 may be shared with every other process of the node.
        x = torch.tensor(x0, dtype=torch.float32, device=device)
        self.state = State(x, initial(experiment.curvature, x.numel(), device))
        self.buffer = torch.empty_like(x, dtype=getattr(torch, experiment.task.dtype))
        budget = int(experiment.resources.direction_cache_mb * 2**20)
        self.directions = Directions(x.numel(), device, budget)
        self.round = 0

    @property
    def probe(self) -> Probe:
        method = self.experiment.method
        return Probe(method.num_perturbations, method.mu, method.probe == "central")

    def catch_up(self, missed: Missed) -> None:
        """Moves to x_r of the round asked for, by a snapshot if it helps and by records.

        Raises:
            Behind: some of the records in between are missing, or the snapshot cannot be read.
        """
        if missed.snapshot is not None and missed.snapshot.round > self.round:
            try:
                self._start_from(missed.snapshot)
            except OSError as error:
                raise Behind(self.round, str(error)) from error
        for record in missed.records:
            if record.round < self.round:
                continue
            if record.round > self.round:
                raise Behind(self.round)
            self._apply(record)
        if self.round != missed.round:
            raise Behind(self.round)

    def _apply(self, record: Record) -> None:
        if record.scalars:  # else nobody answered, and nothing moves
            apply_record(
                self.state,
                self.directions,
                record.seeds,
                np.array(record.scalars, np.float32),
                lr=record.lr,
                beta=record.hessian_retention,
                eps=record.hessian_eps,
                learn_from_all=self.experiment.method.hessian_update == "all",
            )
        self.directions.forget()
        self.round += 1

    def snapshot(self, folder: Path, check: str) -> Snapshot:
        """Writes x and H to ``folder``; see :func:`hiso_ray.snapshots.write`."""
        tensors = {name: tensor.cpu().numpy() for name, tensor in self._tensors().items()}
        return snapshots.write(folder, self.round, check, tensors, self.state.update_norm)

    def _start_from(self, snapshot: Snapshot) -> None:
        tensors, update_norm = snapshots.read(snapshot)
        for name, tensor in self._tensors().items():
            tensor.copy_(torch.from_numpy(tensors[name]))
        self.state.update_norm, self.round = update_norm, snapshot.round
        self.directions.forget()

    def _tensors(self) -> dict[str, Tensor]:
        """All that a round leaves behind."""
        h = self.state.curvature.values()
        return {"x": self.state.x} if h is None else {"x": self.state.x, "h": h}

    def forward_weights(self) -> Tensor:
        """x in the dtype of the forward passes; valid until the next probe."""
        same = self.buffer.dtype == self.state.x.dtype
        return self.state.x if same else self.buffer.copy_(self.state.x)

    def score(self, batch: int) -> Score:
        return self.task.score(self.forward_weights(), batch)

    def statistics(self) -> dict[str, float]:
        """‖Δ‖ of the last update and, for methods with curvature, H's min, median and max.

        The median is that of evenly spaced elements, at most 65 536.
        """
        found = {"update_norm": self.state.update_norm}
        h = self.state.curvature.values()
        if h is not None:
            sample = h[:: -(-h.numel() // STATISTICS_SAMPLE)]
            found |= {
                "h_min": float(h.min()),
                "h_median": float(sample.median()),
                "h_max": float(h.max()),
            }
        return found

    def digest(self) -> str:
        return weights_sha256(self.state.x, self.task.layout)


def weights_sha256(x: Tensor, layout: Layout) -> str:
    """SHA-256 over the float32 bytes of the trainable tensors, in the order of their names."""
    tensors = views(x.cpu(), layout)
    sha = hashlib.sha256()
    for name in sorted(tensors):
        sha.update(tensors[name].contiguous().numpy().tobytes())
    return sha.hexdigest()
