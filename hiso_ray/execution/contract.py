"""The interface between the round loop and the executors that compute for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hiso_ray.config import Experiment
from hiso_ray.execution.history import History
from hiso_ray.federation.attendance import Population
from hiso_ray.messages import Description, Score, Snapshot, Turn
from hiso_ray.run_folder.metrics_reader import Row

OnRow = Callable[[Row], None]
OnNote = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """One federation to run.

    Attributes:
        folder: the run folder.
        identity: digests for the ledger's header.
        evaluation_sha256: digest of the evaluation examples.
    """

    experiment: Experiment
    folder: Path
    identity: dict[str, str]
    population: Population
    evaluation_sha256: str


@dataclass(frozen=True)
class Evaluation:
    """Results on the whole evaluation set at one round.

    Attributes:
        score: of all examples, in the order of the data.
        statistics: of the update and of H.
    """

    score: Score
    statistics: dict[str, float]


class Executor(Protocol):
    """What the round loop needs computed, always at x_r: the fold of a history of r records."""

    description: Description
    actors: int

    @property
    def message_bytes(self) -> int:
        """Size of all serialized messages so far."""
        ...

    def x0(self) -> np.ndarray:
        """(d,) float32 initial weights, read only; needed by methods that send weights."""
        ...

    def turns(self, history: History, clients: np.ndarray, seeds: Sequence[int]) -> Iterable[Turn]:
        """The turns of a cohort, in any order."""
        ...

    def evaluate(self, history: History) -> Evaluation: ...

    def digest(self, history: History) -> str:
        """SHA-256 of the weights."""
        ...

    def diagnose(self, history: History) -> dict[str, Any]:
        """Diagnostics of H; see ``client.diagnostics``."""
        ...

    def snapshot(self, history: History) -> Snapshot | str:
        """Writes x_r and H_r into the history's folder, or returns why no replica could;
        needed by the scalar family, whose replicas hold x_r and H_r."""
        ...
