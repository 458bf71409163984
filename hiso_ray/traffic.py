"""What passes between the server and its clients, and what each client did.

Bytes are counted by three rules, never mixed:

- *protocol* (``uplink_bytes``, ``downlink_bytes``): down, to each sampled client, the request (τ
  seeds of 8 bytes, lr and μ of 4) and every record it missed since its last turn (the same, plus
  τ·P scalars of 4), whether it then answers, goes away or comes late; up, what arrived in time:
  the τ·P float32 scalars of each client of the record's cohort. A round that nobody answered
  leaves nothing to catch up with. The initial model is a line of its own in the summary: every
  method pays it once.
- *paper* (``paper_bytes_per_client``): rounds × 2 × P × τ × 4, the rule of the published tables.
- *ray* (``ray_bytes``, counted by the executor): the serialized messages between the driver and
  the client actors.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from hiso_ray.config import Experiment, MethodConfig
from hiso_ray.devices import NAMES, Devices
from hiso_ray.ledger import Record


def uplink_bytes(local_steps: int, perturbations: int) -> int:
    """What one client sends up."""
    return 4 * local_steps * perturbations


def request_bytes(local_steps: int) -> int:
    """What asks one sampled client for its turn."""
    return 8 * local_steps + 4 + 4


def record_bytes(local_steps: int, perturbations: int) -> int:
    """One missed record."""
    return request_bytes(local_steps) + 4 * local_steps * perturbations


def paper_bytes_per_client(rounds: int, local_steps: int, perturbations: int) -> int:
    """The byte rule behind the published tables (REFERENCE: HiSo tables; up + down)."""
    return rounds * 2 * perturbations * local_steps * 4


def forward_passes(method: MethodConfig, local_steps: int) -> int:
    """Of one client's turn, each over one minibatch."""
    p = method.num_perturbations
    return local_steps * (2 * p if method.probe == "central" else p + 1)


class Traffic:
    """Turns, protocol bytes and time so far, as a fold over the records.

    Attributes:
        sampled, answered, dropped, late: (num_clients,) int64 rounds in which each client was.
        uplink_bytes, downlink_bytes: (num_clients,) int64.
        applied: records so far that moved the model.
        seen: (num_clients,) int64 how many of those each client holds.
        simulated_seconds: on the virtual clock.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        zeros = np.zeros((7, experiment.federation.num_clients), np.int64)
        self.sampled, self.answered, self.dropped, self.late = zeros[:4]
        self.uplink_bytes, self.downlink_bytes, self.seen = zeros[4:]
        self.applied = 0
        self.simulated_seconds = 0.0

    @property
    def up(self) -> int:
        return int(self.uplink_bytes.sum())

    @property
    def down(self) -> int:
        return int(self.downlink_bytes.sum())

    @property
    def forwards(self) -> int:
        """Forward passes of the turns that were computed: those of clients that answered."""
        turn = forward_passes(self.experiment.method, self.experiment.federation.local_steps)
        return int(self.answered.sum()) * turn

    def missed(self, clients: np.ndarray) -> np.ndarray:
        """(m,) int64 records that each client must catch up with before its next turn."""
        return self.applied - self.seen[clients]

    def count(self, record: Record) -> None:
        """Adds the next record."""
        answered, dropped, late = (
            np.array(clients, np.int64) for clients in (record.cohort, record.dropped, record.late)
        )
        sampled = np.concatenate([answered, dropped, late])
        tau, perturbations = len(record.seeds), self.experiment.method.num_perturbations
        self.sampled[sampled] += 1
        self.answered[answered] += 1
        self.dropped[dropped] += 1
        self.late[late] += 1
        self.uplink_bytes[answered] += uplink_bytes(tau, perturbations)
        self.downlink_bytes[sampled] += request_bytes(tau)
        self.downlink_bytes[sampled] += self.missed(sampled) * record_bytes(tau, perturbations)
        self.seen[sampled] = self.applied
        self.applied += bool(record.scalars)
        self.simulated_seconds += record.seconds


def write_clients(
    path: Path, traffic: Traffic, examples: np.ndarray, devices: Devices | None
) -> None:
    """``clients.csv``: one row per client, with its device where there are devices.

    Args:
        examples: (num_clients,) int64 that each client holds.
    """
    columns = {
        "client": np.arange(len(examples)),
        "examples": examples,
        "sampled": traffic.sampled,
        "answered": traffic.answered,
        "dropped": traffic.dropped,
        "late": traffic.late,
        "uplink_bytes": traffic.uplink_bytes,
        "downlink_bytes": traffic.downlink_bytes,
    }
    if devices is not None:
        columns |= {name: getattr(devices, name) for name in NAMES}
    fresh = path.with_name(path.name + ".new")
    with open(fresh, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(columns)
        table.writerows(zip(*(values.tolist() for values in columns.values()), strict=True))
    fresh.replace(path)  # whole or not at all
