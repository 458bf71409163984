"""Messages between driver and workers: plain data, no torch; weights only if clients send them."""

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
    """What a replica needs to reach ``round``: the records since its own round or a snapshot's;
    for methods that send weights, the weights.

    Attributes:
        records: oldest first.
        snapshot: where to start, unless the replica is at that round or later; None without one.
        weights: (d,) float32 x_r, read only.
    """

    round: int
    records: Sequence[Record]
    snapshot: Snapshot | None = None
    weights: np.ndarray | None = None


@dataclass(frozen=True)
class Turn:
    """What one client sends to the server, and its losses.

    Attributes:
        losses: (τ,) float64, at the weights of each local step.
        payload: its scalars as encoded for the uplink; empty for methods that send weights.
        update: (d,) float32, for methods that send weights. The first client of a work unit carries
            the weighted sum of the changes of all its clients; the others carry None.
    """

    client: int
    losses: np.ndarray
    payload: bytes = b""
    update: np.ndarray | None = None


class Score(NamedTuple):
    """Evaluation results per example, for one batch or for all examples (``outcomes``).

    Attributes:
        losses: (terms,) float32, in example order: one per example, or for generation one per
            token of its answer.
        terms: (n,) int32, number of losses of each example.
        points: per metric, (n,) float32; a hit is 1.
    """

    losses: np.ndarray
    terms: np.ndarray
    points: dict[str, np.ndarray]


@dataclass(frozen=True)
class Description:
    """What a worker computes with; equal descriptions promise equal bits.

    Attributes:
        device: "cpu" and its vector width (which affects the last bits of matrix products), or
            "cuda" and the GPU's name.
        torch: version.
        threads: torch threads.
        generator: name and version of the direction generator.
        dimension: d, the number of trainable weights.
        frozen: weights of the model that are not trained.
        eval_batches: number of the task's evaluation batches.
        triton: whether each pass over the weights may be one fused kernel (same bits, faster).
    """

    device: str
    torch: str
    threads: int
    generator: dict[str, str | int]
    dimension: int
    frozen: int
    eval_batches: int
    triton: bool
