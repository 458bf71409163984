"""(x, H) at a round: one replica per process. In the scalar family only records advance it,
never weights; the other methods send it x_r."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiso_ray import progress
from hiso_ray.client import reported
from hiso_ray.client.landscape import look
from hiso_ray.config import Experiment
from hiso_ray.config.schedule import rate
from hiso_ray.errors import Behind, NonFiniteLoss
from hiso_ray.messages import Missed, Score, Snapshot
from hiso_ray.method import averaging
from hiso_ray.method.curvature import OracleDiagonal, initial
from hiso_ray.method.direction import Directions
from hiso_ray.method.naming import Name, Naming
from hiso_ray.method.perturbed import Unperturbed, unperturbed
from hiso_ray.method.probe import Probe
from hiso_ray.method.projection import Blocks
from hiso_ray.method.scalar import Rule, State, Step, apply_record
from hiso_ray.record import Record
from hiso_ray.run_folder import snapshots
from hiso_ray.seeds import Purpose, pool_seed
from hiso_ray.server.work_units import clients_together
from hiso_ray.tasks.contract import Task

ORACLE_SAMPLES = 32  # random vectors per estimate of the Hessian's diagonal


class Replica:
    """The shared model as one process sees it.

    Memory: x, a buffer for perturbed weights in the forward dtype (if probes build one layer at a
    time, the task's buffer of one layer instead), H if the method has one, and the remembered
    directions; with several local steps d more floats for a client's local x, and with averaging d
    more for the average.

    Attributes:
        train_examples: number in the whole federation.
        round: r, the number of records applied.
        average: (d,) float32 average of x_1 to x_r, or x_0; None without ``method.averaging``.
        blocks: of the weights, for methods that project; None for others.
        buffer: (k, d) for k perturbed weight vectors, as many as the task takes at once; None if
            the task builds them layer by layer.
    """

    def __init__(
        self,
        experiment: Experiment,
        task: Task,
        x0: np.ndarray,
        device: torch.device,
        train_examples: int,
    ) -> None:
        self.experiment, self.task, self.device = experiment, task, device
        # Copied, since x0 may be shared with every other process of the node.
        x = torch.tensor(x0, dtype=torch.float32, device=device)
        method = experiment.method
        curvature = initial(
            method.curvature,
            task.layout,
            device,
            seed=experiment.seed,
            rounds=method.curvature_rounds,
        )
        moves = method.momentum > 0 and not experiment.sends_weights
        velocity = torch.zeros_like(x) if moves else None
        self.state = State(x, curvature, method.curvature_in, velocity)
        budget = int(experiment.resources.direction_cache_mb * 2**20)
        self.average = x.clone() if method.averaging > 0 else None
        self.directions = Directions(
            x.numel(), device, budget, method.generator, method.distribution
        )
        self.blocks: Blocks | None = None
        if method.row.projects:
            made = device, budget, method.generator, method.distribution
            self.blocks = Blocks(task.layout, method.projections, *made)
        pool = (pool_seed(experiment.seed), method.seed_pool) if method.seed_pool else None
        self.naming = Naming(method.num_perturbations, method.directions == "shared", pool)
        self.probe = Probe(
            method.mu,
            method.probe,
            second=method.row.second_differences,
            sphere=method.row.on_sphere,
        )
        self.buffer = None
        # Networks that take several weight vectors at once are too small for layers to save memory.
        if experiment.resources.probe_weights == "whole" or task.several is not None:
            dtype, rows = getattr(torch, experiment.task.dtype), self._weight_vectors()
            self.buffer = torch.empty(rows, x.numel(), dtype=dtype, device=device)
        self.round = 0
        self.train_examples = train_examples
        self._consult_oracle()

    @property
    def lr(self) -> float:
        """η of the local steps that start at x_r, and of the record they lead to."""
        return rate(self.experiment.method, self.round)

    @property
    def result(self) -> Tensor:
        """(d,) float32 weights that the run gives at this round, to be scored, exported and
        digested: the average of the iterates if there is one, else x_r."""
        return self.state.x if self.average is None else self.average

    @property
    def steps_together(self) -> bool:
        """Whether clients at different local weights are measured together."""
        alike = self.naming.shared and self.probe.kind != "exact"
        return alike and self.task.several is not None

    def _weight_vectors(self) -> int:
        """How many perturbed weight vectors exist at once."""
        if self.task.several is None or self.experiment.method.row.first_order:
            return 1
        points = self.probe.points_of(self.naming.perturbations)
        at_once = min(self.task.several.at_once, points)
        experiment = self.experiment
        apart = experiment.federation.local_steps > 1 and self.steps_together
        return at_once * (clients_together(experiment) if apart else 1)

    def measure(
        self, x: Tensor, batches: Sequence[Any], names: Sequence[Name]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Probes from x along the named directions; see ``Probe.scalars``."""
        return self.probe.scalars(
            self.task,
            x,
            batches,
            names,
            self.state.in_probe,
            self.directions,
            self.buffer,
        )

    def catch_up(self, missed: Missed) -> None:
        """Moves to x_r of the requested round: from the weights if given, else by a newer snapshot,
        if any, and records.

        Raises:
            Behind: some of the records in between are missing, or the snapshot cannot be read.
            NonFiniteLoss: an update has overflowed.
        """
        if missed.weights is not None:
            self._take(missed.weights, missed.round)
            return
        if missed.snapshot is not None and missed.snapshot.round > self.round:
            try:
                self._start_from(missed.snapshot)
            except OSError as error:
                raise Behind(self.round, str(error)) from error
        for record in progress.parts("catching up with rounds", missed.records):
            if record.round < self.round:
                continue
            if record.round > self.round:
                raise Behind(self.round)
            self._apply(record)
        if self.round != missed.round:
            raise Behind(self.round)

    def _take(self, weights: np.ndarray, round_: int) -> None:
        with warnings.catch_warnings():  # arrays from the object store are read-only
            warnings.filterwarnings("ignore", message=".*not writable")
            self.state.x.copy_(torch.from_numpy(weights))
        self.directions.forget()
        self.round = round_

    def _apply(self, record: Record) -> None:
        if record.moves and self.blocks is not None:
            (seed,), (g,) = record.seeds, record.scalars
            self.blocks.apply(self.state, seed, np.array(g, np.float32), record.lr, record.momentum)
        elif record.moves:
            second = record.second or [None] * len(record.scalars)
            steps = [
                Step(
                    self.naming.of_record(seed, record.cohort),
                    np.array(g, np.float32),
                    None if c is None else np.array(c, np.float32),
                )
                for seed, g, c in zip(record.seeds, record.scalars, second, strict=True)
            ]
            every = self.experiment.method.hessian_update == "all"
            rule = Rule(
                record.lr, record.hessian_retention, record.hessian_eps, every, record.momentum
            )
            apply_record(self.state, self.directions, steps, rule)
        self.directions.forget()
        self.round += 1
        self._check_finite(f"the update of round {self.round - 1}", self.state.update_norm)
        if self.average is not None:
            retention = self.experiment.method.averaging
            averaging.absorb(self.average, self.state.x, retention, self.round)
        self._consult_oracle()

    def _check_finite(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            raise NonFiniteLoss(
                f"{what} has overflowed ({value}): lower "
                + " or ".join(self.experiment.method.rates)
            )

    def _consult_oracle(self) -> None:
        """Measures the Hessian's diagonal at x_r every ``curvature_rounds`` rounds, for the oracle
        arm. It depends on x_r and the round only, so all replicas get the same.

        Raises:
            NonFiniteLoss: the diagonal has overflowed.
        """
        oracle = self.state.curvature
        if not isinstance(oracle, OracleDiagonal):
            return
        if self.round % self.experiment.method.curvature_rounds == 0:
            seed, x = self.experiment.seed, self.state.x
            view = look(self.task, x, self.train_examples, seed, Purpose.ORACLE, self.round)
            diagonal = view.hessian_diagonal(ORACLE_SAMPLES)
            total = float(diagonal.sum(dtype=torch.float64))
            self._check_finite(f"the Hessian's diagonal before round {self.round}", total)
            oracle.set_hessian(diagonal)

    def snapshot(self, folder: Path, check: str) -> Snapshot:
        """Writes what rounds change to ``folder``; see ``run_folder.snapshots.write``."""
        tensors = {name: tensor.cpu().numpy() for name, tensor in self._tensors().items()}
        return snapshots.write(folder, self.round, check, tensors, self.state.update_norm)

    def _start_from(self, snapshot: Snapshot) -> None:
        tensors, update_norm = snapshots.read(snapshot)
        for name, tensor in self._tensors().items():
            tensor.copy_(torch.from_numpy(tensors[name]))
        self.state.update_norm, self.round = update_norm, snapshot.round
        self.directions.forget()

    def _tensors(self) -> dict[str, Tensor]:
        """The tensors that rounds change."""
        moved = {
            "x": self.state.x,
            "velocity": self.state.velocity,
            "average": self.average,
            "block_norms": None if self.blocks is None else self.blocks.norms,
        }
        held = {name: tensor for name, tensor in moved.items() if tensor is not None}
        return held | self.state.curvature.stored()

    def forward_weights(self) -> Tensor | Unperturbed:
        """The result in the dtype of the forward passes; valid until the next probe."""
        return unperturbed(self.result, None if self.buffer is None else self.buffer[0])

    def score(self, batch: int) -> Score:
        return self.task.score(self.forward_weights(), batch)

    def statistics(self) -> dict[str, float]:
        """‖Δ‖ of the last update and, for methods with curvature, those of H.

        Raises:
            NonFiniteLoss: H has overflowed.
        """
        found = {"update_norm": self.state.update_norm}
        h = self.state.curvature.values()
        if h is not None:
            found |= reported.statistics(h)
            self._check_finite(f"H of round {self.round - 1}", found["h_max"])
        return found

    def digest(self) -> str:
        return reported.weights_sha256(self.result, self.task.layout)
