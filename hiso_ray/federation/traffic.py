"""Traffic between the server and its clients, and each client's participation.

Bytes are counted by three rules, never mixed:

- *protocol* (``uplink_bytes``, ``downlink_bytes``): down, each sampled client gets the request (τ
  seeds of 8 bytes if it probes, one if it projects, lr and μ of 4) and every record it missed since
  its last turn (the same, plus its scalars), or for methods that send weights the d float32 of x_r;
  this counts even if the client drops out or is late. Up, the payload of each client of the
  record's cohort, that is of each that answered in time. A round that moved nothing leaves nothing
  to catch up with. A mask that clients cannot make themselves comes with a client's first request
  (``Sizes.mask``). The summary lists the initial model separately: every method sends it once.
- *paper* (``paper_bytes_per_client``): the rule of the published tables, rounds × 2 × P × τ × 4 for
  scalars and rounds × 2 × d × 4 for weights.
- *ray* (``ray_bytes``, counted by the executor): the serialized messages between the driver and
  the client actors, including evaluations, which return each example's loss and scores. Outgoing
  weights are counted once a round, when they are put into the object store; each further node
  fetches them once more.

Messages are whole bytes: FeedSign's one bit takes one byte, except by the paper's rule.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from hiso_ray.config import Experiment, MethodConfig
from hiso_ray.federation.devices import NAMES, Devices
from hiso_ray.federation.uplink import payload_bytes
from hiso_ray.record import Record
from hiso_ray.run_folder.whole_files import whole


@dataclass(frozen=True)
class Sizes:
    """Message sizes of an experiment [bytes].

    Attributes:
        dimension: d.
        frozen: weights of the model that are not trained.
    """

    experiment: Experiment
    dimension: int
    frozen: int = 0

    @cached_property
    def scalars(self) -> int:
        """Number of scalars of a client's answer; see :func:`scalars_per_turn`."""
        return scalars_per_turn(self.experiment)

    @cached_property
    def up(self) -> int:
        """The payload of one client."""
        if self.experiment.sends_weights:
            return 4 * self.dimension
        return payload_bytes(self.experiment.precision, self.scalars)

    @cached_property
    def request(self) -> int:
        """The request to one sampled client for its turn."""
        seeds = self._seeds if self.experiment.method.row.draws else 0
        model = 4 * self.dimension if self.experiment.sends_weights else 0
        return seeds + 4 + 4 + model

    @cached_property
    def mask(self) -> int:
        """A mask chosen by sensitivities, which only the server has measured: a bit for each weight
        of the model, or if that is shorter the positions of those that are trained. Other masks
        follow from x_0 or the run seed."""
        if self.experiment.task.sparse_by != "sensitivity":
            return 0
        whole = self.dimension + self.frozen
        position = 4 if whole <= 2**32 else 8
        return min(math.ceil(whole / 8), position * self.dimension)

    def record(self, answered: int) -> int:
        """One missed record of a round with ``answered`` answers."""
        method = self.experiment.method
        if self.experiment.sends_weights:
            return 0
        if method.row.aggregation == "majority":
            return self._seeds + 4 + 4 + payload_bytes("sign", self.scalars)
        if method.directions == "shared":
            return self._seeds + 4 + 4 + 4 * self.scalars
        return self._seeds + 4 + 4 + 4 * answered * (1 + self.scalars)  # 1: the client id

    def missed(self, records_bytes: np.ndarray) -> np.ndarray:
        """What brings clients up to date, given the bytes of the records they missed.

        With a finite pool of K seeds, one summed scalar per seed replaces any number of records
        (FedKSeed's collapse: x is linear in them); the sums are sent where that is shorter.
        """
        pool = self.experiment.method.seed_pool
        return np.minimum(records_bytes, 4 * pool) if pool else records_bytes

    @property
    def _seeds(self) -> int:
        return 8 * self.experiment.record_steps


def scalars_per_turn(experiment: Experiment) -> int:
    """Number of scalars one client sends in a round: τ·P, 2τP with second differences, or K
    where it projects its change."""
    method = experiment.method
    per_step = method.directions_per_step * (1 + method.row.second_differences)
    return experiment.record_steps * per_step


def paper_bytes_per_client(experiment: Experiment, rounds: int, dimension: int) -> int:
    """The byte rule behind the published tables (REFERENCE: HiSo tables; up + down).

    A scalar is 4 bytes each way; FeedSign's is a bit each way; FedKSeed sends pairs of seed and
    scalar up and K scalars down; with directions per client, every client downloads all clients'
    scalars; weights count as d scalars.
    """
    federation, method = experiment.federation, experiment.method
    scalars, sizes = scalars_per_turn(experiment), Sizes(experiment, dimension)
    if experiment.sends_weights:
        return rounds * 2 * 4 * dimension
    if method.row.aggregation == "majority":
        return math.ceil(rounds * 2 * scalars / 8)
    if method.seed_pool:
        return rounds * 4 * (2 * scalars + method.seed_pool)
    sets = 1 if method.directions == "shared" else federation.clients_per_round
    return rounds * (sizes.up + 4 * sets * scalars)


def forward_passes(method: MethodConfig, local_steps: int) -> int:
    """Forward passes of one client's turn, each over one minibatch. A backward pass counts as two,
    and so does a forward pass that carries a derivative."""
    p = method.num_perturbations
    if method.row.first_order:
        return 3 * local_steps
    per_step = {"forward": p + 1, "central": 2 * p + method.row.second_differences, "exact": 2 * p}
    return local_steps * per_step[method.probe]


class Traffic:
    """Turns, protocol bytes and time so far, as a fold over the records.

    Attributes:
        answered, dropped, late: (num_clients,) int64 rounds in which each client
            answered, dropped out or was late.
        downlink_bytes: (num_clients,) int64; ``down`` is their sum.
        turns: number of answered turns, of all clients.
        applied, applied_bytes: number of records that moved the model, and their bytes.
        seen, seen_bytes: (num_clients,) int64 the part of those that each client holds.
        simulated_seconds: on the virtual clock.
    """

    def __init__(self, experiment: Experiment, dimension: int, frozen: int = 0) -> None:
        self.experiment, self.sizes = experiment, Sizes(experiment, dimension, frozen)
        zeros = np.zeros((6, experiment.federation.num_clients), np.int64)
        self.answered, self.dropped, self.late = zeros[:3]
        self.downlink_bytes, self.seen, self.seen_bytes = zeros[3:]
        self.down = self.applied = self.applied_bytes = 0
        self.turns = 0
        self.simulated_seconds = 0.0
        self._forwards = forward_passes(experiment.method, experiment.federation.local_steps)

    @property
    def sampled(self) -> np.ndarray:
        """(num_clients,) int64 rounds in which each client was sampled."""
        return self.answered + self.dropped + self.late

    @property
    def uplink_bytes(self) -> np.ndarray:
        """(num_clients,) int64"""
        return self.answered * self.sizes.up

    @property
    def up(self) -> int:
        return self.turns * self.sizes.up

    @property
    def forwards(self) -> int:
        """Forward passes of the turns that were computed: those of clients that answered."""
        return self.turns * self._forwards

    def missed(self, clients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(m,) int64 number of records each client must catch up with before its next turn, and
        the bytes that takes, with the mask before its first."""
        return self.applied - self.seen[clients], self._missed_bytes(clients)

    def _missed_bytes(self, clients: np.ndarray) -> np.ndarray:
        records = self.sizes.missed(self.applied_bytes - self.seen_bytes[clients])
        if not self.sizes.mask:
            return records
        turns = self.answered[clients] + self.dropped[clients] + self.late[clients]
        return records + self.sizes.mask * (turns == 0)

    def add(self, record: Record) -> None:
        """Adds the next record."""
        sampled = np.array(record.cohort + record.dropped + record.late, np.int64)
        came, left = len(record.cohort), len(record.cohort) + len(record.dropped)
        answered, dropped, late = sampled[:came], sampled[came:left], sampled[left:]
        downlink = self.sizes.request + self._missed_bytes(sampled)
        self.answered[answered] += 1
        self.dropped[dropped] += 1
        self.late[late] += 1
        self.turns += came
        self.downlink_bytes[sampled] += downlink
        self.down += int(downlink.sum())
        self.seen[sampled], self.seen_bytes[sampled] = self.applied, self.applied_bytes
        if record.moves and not self.experiment.sends_weights:
            self.applied += 1
            self.applied_bytes += self.sizes.record(len(record.cohort))
        self.simulated_seconds += record.seconds


def write_clients(
    path: Path, traffic: Traffic, examples: np.ndarray, devices: Devices | None
) -> None:
    """``clients.csv``: one row per client, with its device if there are any.

    Args:
        examples: (num_clients,) int64 number of examples of each client.
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
    with whole(path) as new, open(new, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(columns)
        table.writerows(zip(*(values.tolist() for values in columns.values()), strict=True))
