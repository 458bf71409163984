"""The server of methods that send weights: holds x_r and computes x_{r+1} from a cohort's deltas.

The scalar family needs no such server. Here a record holds only a digest of the mean delta, not the
delta: weights are restored from the newest snapshot, and the rounds after it are run again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hiso_ray.config import Experiment
from hiso_ray.messages import Snapshot, Turn
from hiso_ray.record import Record
from hiso_ray.run_folder import snapshots
from hiso_ray.run_folder.ledger import LedgerError
from hiso_ray.server import optimizers


class WeightServer:
    """x_r and the state of the server's optimizer.

    Attributes:
        update_norm: ‖Δ‖ of the last round.
    """

    def __init__(self, experiment: Experiment, x0: np.ndarray, examples: np.ndarray) -> None:
        """
        Args:
            x0: (d,) float32; copied.
            examples: (num_clients,) int64 number of examples of each client.
        """
        self._experiment, self._examples = experiment, examples
        self._optimizer = experiment.method.row.server
        self._state = optimizers.initial(self._optimizer, x0, experiment.method.server_eps)
        self.update_norm = 0.0

    @property
    def round(self) -> int:
        return self._state.round

    @property
    def x(self) -> np.ndarray:
        """(d,) float32 x_r; the next step overwrites it."""
        return self._state.x

    def mean(self, turns: Sequence[Turn]) -> np.ndarray:
        """Δ, (d,) float32: the mean of the clients' deltas, newly allocated.

        Args:
            turns: in client-id order.
        """
        cohort = [turn.client for turn in turns]
        parts = {turn.client: turn.update for turn in turns if turn.update is not None}
        by_examples = self._experiment.aggregation.weights == "examples"
        weight = self._examples[cohort].sum() if by_examples else len(cohort)
        return optimizers.weighted_mean(parts, optimizers.chunks(cohort), float(weight))

    def step(self, update: np.ndarray | None) -> None:
        """x_r -> x_{r+1}.

        Args:
            update: Δ; None for a round that nobody answered.
        """
        if update is None:
            self._state.round += 1
            return
        method = self._experiment.method
        optimizers.step(
            self._state,
            update,
            self._optimizer,
            lr=method.server_lr,
            beta1=method.server_beta1,
            beta2=method.server_beta2,
            eps=method.server_eps,
        )
        self.update_norm = float(np.square(update, dtype=np.float64).sum()) ** 0.5

    def again(self, record: Record, turns: Sequence[Turn]) -> None:
        """Takes the step of a round that has been run again.

        Raises:
            LedgerError: Δ differs from the one whose digest is in the record.
        """
        update = self.mean(turns) if turns else None
        if (None if update is None else digest(update)) != record.update_sha256:
            raise LedgerError(
                f"round {record.round} run again gives other weights than the ledger says: it was "
                "written with another torch, kind of processor or number of threads"
            )
        self.step(update)

    def write(self, folder: Path, check: str) -> Snapshot | str:
        """Writes a snapshot of the state; returns it, or why it could not be written."""
        try:
            return snapshots.write(
                folder, self.round, check, optimizers.tensors(self._state), self.update_norm
            )
        except OSError as error:
            return str(error)

    def restore(self, snapshot: Snapshot) -> None:
        """Restores the state from a snapshot.

        Raises:
            OSError: the snapshot cannot be read.
        """
        tensors, self.update_norm = snapshots.read(snapshot)
        self._state = optimizers.restored(self._optimizer, tensors, snapshot.round)


def digest(update: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(update).data).hexdigest()
