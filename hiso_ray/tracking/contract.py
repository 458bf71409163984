"""The interface between a run and the trackers that show it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from hiso_ray.config import Experiment
from hiso_ray.run_folder.metrics_reader import Row


@dataclass(frozen=True)
class Shown:
    """What a tracker shows.

    Attributes:
        folder: the run folder, an absolute path.
        patience: how long a tracker may take to close [s].
    """

    experiment: Experiment
    folder: Path
    patience: float

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def sweep(self) -> str | None:
        """The name of the sweep folder that the run is a trial of, if it is one."""
        of_sweep = self.folder.parent.parent
        return of_sweep.name if (of_sweep / "plan.yaml").exists() else None


class Tracker(ABC):
    """One tracker of one run. Its methods may raise anything and take any time: ``background``
    calls them, in one thread and in this order, and stops at the first error.

    Attributes:
        library: the module that it needs.
        takes_models: whether exported models are shown.
        place: where the run can be seen, for the user; known once it is open.
    """

    library: ClassVar[str]
    takes_models: ClassVar[bool] = True
    place: str | None = None

    def __init__(self, shown: Shown) -> None:
        self._shown = shown

    @abstractmethod
    def open(self, earlier: str | None) -> str | None:
        """Goes on with an earlier run if the tracker still has it, or else begins one.

        Args:
            earlier: the id that an earlier process of the same run was given.

        Returns:
            The tracker's id of the run; None if rows of earlier processes are not to be sent again.
        """

    @abstractmethod
    def rows(self, rows: Sequence[Row]) -> None:
        """Rows of ``metrics.csv``, in order; an empty cell is None, or its name is missing."""

    def summary(self, summary: Mapping[str, Any]) -> None:  # noqa: B027  not every tracker has one
        """The content of ``summary.json``."""

    def pictures(self, paths: Sequence[Path]) -> None:  # noqa: B027
        """PNG files of the run folder."""

    def model(self, folder: Path) -> None:  # noqa: B027
        """An exported model."""

    def close(self, finished: bool) -> None:  # noqa: B027
        """
        Args:
            finished: whether the run came to its end.
        """
