"""What the round loop and whoever computes for it agree on."""

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
from hiso_ray.run_folder.rows import Row

OnRow = Callable[[Row], None]
OnNote = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """One federation to be run.

    Attributes:
        folder: the run folder.
        identity: digests for the ledger's header.
        evaluation_sha256: names the examples that it is scored on.
    """

    experiment: Experiment
    folder: Path
    identity: dict[str, str]
    population: Population
    evaluation_sha256: str


@dataclass(frozen=True)
class Evaluation:
    """The whole evaluation set at one round.

    Attributes:
        score: of all its examples, in the order of the data.
        statistics: of the update and of H.
    """

    score: Score
    statistics: dict[str, float]


class Executor(Protocol):
    """What the loop asks for, always of x_r: the fold of a history of r records."""

    description: Description
    actors: int

    @property
    def message_bytes(self) -> int:
        """Serialized messages so far."""
        ...

    def x0(self) -> np.ndarray:
        """(d,) float32 initial weights, read only; asked for by methods that send weights."""
        ...

    def turns(self, history: History, clients: np.ndarray, seeds: Sequence[int]) -> Iterable[Turn]:
        """The turns of a cohort, in any order."""
        ...

    def evaluate(self, history: History) -> Evaluation: ...

    def digest(self, history: History) -> str:
        """SHA-256 of the weights."""
        ...

    def diagnose(self, history: History) -> dict[str, Any]:
        """The evidence about H; see ``diagnostics``."""
        ...

    def snapshot(self, history: History) -> Snapshot | str:
        """Writes x_r and H_r into the history's folder, or says why nobody could; asked for by the
        scalar family, where replicas hold them."""
        ...
