"""The trackers of a run, as the process that started it sees them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hiso_ray.config import Experiment
from hiso_ray.errors import UserError
from hiso_ray.run_folder import files
from hiso_ray.run_folder.locks import is_held
from hiso_ray.run_folder.metrics_reader import Row
from hiso_ray.run_folder.summary import read_summary
from hiso_ray.tracking.background import Background, End
from hiso_ray.tracking.contract import Shown, Tracker
from hiso_ray.tracking.mlflow import MLflow
from hiso_ray.tracking.tensorboard import TensorBoard
from hiso_ray.tracking.wandb import WandB

KINDS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB}
CLOSE_SECONDS = 60.0  # for all trackers together, after a run
MODEL_SECONDS = 600.0  # the same, with an exported model


def check_installed(experiment: Experiment) -> None:
    """
    Raises:
        UserError: a tracker of the experiment is not installed.
    """
    for name in experiment.tracking:
        if not _installed(name):
            raise UserError(
                f"tracking = {name}: it is not installed here. Install it with `pip install "
                f"'hiso-ray[{name}]'`, or leave it out"
            )


def _installed(name: str) -> bool:
    found = find_spec(KINDS[name].library)
    # Without an origin it is a folder of that name: W&B makes one where it is used.
    return found is not None and found.origin is not None


class Tracked:
    """Shows a run to its trackers."""

    def __init__(
        self,
        experiment: Experiment,
        folder: Path,
        on_note: Callable[[str], None],
        patience: float,
    ) -> None:
        """
        Args:
            patience: how long :meth:`close` waits, at most [s].
        """
        shown = Shown(experiment, folder.resolve(), patience)
        self._patience, self._begun, self._end = patience, False, End()
        self._trackers = [
            Background(name, KINDS[name](shown), shown.folder, on_note)
            for name in experiment.tracking
        ]

    def row(self, row: Row) -> None:
        """Shows a row of ``metrics.csv``; never waits."""
        self._begun = True
        for tracker in self._trackers:
            tracker.add(row)

    def finish(
        self,
        summary: Mapping[str, Any] | None,
        pictures: Sequence[Path] = (),
        model: Path | None = None,
    ) -> None:
        """What :meth:`close` is to show after the rows.

        Args:
            summary: None if the run has not come to its end.
            pictures: those that do not exist are left out.
        """
        self._begun = True
        self._end = End(summary, [path for path in pictures if path.exists()], model)

    def close(self) -> None:
        """Waits ``patience`` seconds at most. Nothing is shown of a run without a row."""
        if not self._begun:
            return
        deadline = time.monotonic() + self._patience
        for tracker in self._trackers:
            tracker.add(self._end)
        for tracker in self._trackers:
            tracker.wait(max(0.0, deadline - time.monotonic()))


@contextmanager
def tracked(
    experiment: Experiment, folder: Path, on_note: Callable[[str], None]
) -> Iterator[Tracked]:
    """The trackers of a run, closed at the end of the context."""
    trackers = Tracked(experiment, folder, on_note, CLOSE_SECONDS)
    try:
        yield trackers
    finally:
        trackers.close()


def show_model(
    experiment: Experiment, folder: Path, model: Path, on_note: Callable[[str], None]
) -> None:
    """Shows an exported model to those of a run's trackers that take one.

    Args:
        folder: the run folder.
        model: the folder that the model was exported to.
    """
    names = [name for name in experiment.tracking if KINDS[name].takes_models]
    if names and is_held(folder / files.FAULTS):
        on_note(f"the model is not shown to {', '.join(names)} while the run goes on")
        return
    for name in names:
        if not _installed(name):
            on_note(f"the model is not shown to {name}, which is not installed here")
    here = experiment.changed(tracking=[name for name in names if _installed(name)])
    trackers = Tracked(here, folder, on_note, MODEL_SECONDS)
    trackers.finish(read_summary(folder), model=model)
    trackers.close()
