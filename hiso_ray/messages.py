"""What travels between the driver and whoever computes: plain data, no torch, no weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hiso_ray.record import Record


@dataclass(frozen=True)
class Snapshot:
    """A file with x_r and H_r, from which a replica can start instead of from x_0.

    Attributes:
        round: r.
        sha256: over the file's tensors.
    """

    round: int
    path: Path
    sha256: str


@dataclass(frozen=True)
class Missed:
    """What brings a replica to ``round``: the records since its own, or since a snapshot's; or,
    for methods that send weights, the weights.

    Attributes:
        records: oldest first.
        snapshot: where to start unless the replica stands there or later; None for nowhere else.
        weights: (d,) float32 x_r, read only.
    """

    round: int
    records: Sequence[Record]
    snapshot: Snapshot | None = None
    weights: np.ndarray | None = None


@dataclass(frozen=True)
class Turn:
    """What one client sends up, and the losses it saw.

    Attributes:
        losses: (τ,) float64, at the point of each local step.
        payload: its scalars as they travel (``uplink``); empty for methods that send weights.
        update: (d,) float32, for methods that send weights: the sum of the weighted changes of this
            client and of those after it in the same piece of the cohort; None for the others.
    """

    client: int
    losses: np.ndarray
    payload: bytes = b""
    update: np.ndarray | None = None


class Score(NamedTuple):
    """Evaluation examples one by one: those of a batch, or all (``outcomes``).

    Attributes:
        losses: (terms,) float32, example after example: one of each, or for generation those of
            the tokens of its answer.
        terms: (n,) int32, how many of the losses are each example's.
        points: of each metric, (n,) float32; a hit is 1.
    """

    losses: np.ndarray
    terms: np.ndarray
    points: dict[str, np.ndarray]


@dataclass(frozen=True)
class Description:
    """What a worker computes with; equal descriptions promise equal bits.

    Attributes:
        device: "cpu" and its vector width (matrix products differ with it in their last bits), or
            "cuda" and the GPU's name.
        torch: version.
        threads: torch threads.
        generator: name and version of the direction generator.
        dimension: d, the number of trainable weights.
        frozen: weights of the model that are not trained.
        eval_batches: how many evaluation batches the task has.
        triton: whether passes over the weights may be one kernel each (the same bits, sooner).
    """

    device: str
    torch: str
    threads: int
    generator: dict[str, str | int]
    dimension: int
    frozen: int
    eval_batches: int
    triton: bool
