"""How fast a run or a sweep goes, and how long the rest will take."""

from __future__ import annotations

from typing import NamedTuple

from hiso_ray.analysis.sweep_state import OVER, RUNNING, SweepState
from hiso_ray.cli.progress import readable_seconds
from hiso_ray.run_folder.state import State

RECENT = 20  # rounds that the pace is taken from, if they hold two evaluations


class Pace(NamedTuple):
    """
    Attributes:
        speed: rounds per second, of all running trials together.
        left: seconds until the last round, at that speed.
    """

    speed: float
    left: float

    @property
    def speed_in_words(self) -> str:
        return f"{self.speed:.1f} rounds/s" if self.speed >= 1 else f"{1 / self.speed:.1f} s/round"

    def __str__(self) -> str:
        return f"{self.speed_in_words}  {readable_seconds(self.left)} left"


def pace(run: State) -> Pace | None:
    """From its last rounds, with the evaluations among them; None before there are two rows."""
    recent = run.values("seconds")[-max(RECENT, 2 * run.experiment.eval.every) - 1 :]
    if not recent or recent[-1][1] <= recent[0][1]:
        return None
    (first, began), (last, now) = recent[0], recent[-1]
    speed = (last - first) / (now - began)
    return Pace(speed, (run.planned - run.done) / speed)


def pace_of_sweep(sweep: SweepState) -> Pace | None:
    """As if trials that have not begun were as long as the others; None while none is running."""
    speeds = [found.speed for t in sweep.of_status(RUNNING) if (found := pace(t.run)) is not None]
    if not speeds:
        return None
    going = [trial.run for trial in sweep.trials if trial.status not in OVER]
    planned = [trial.run.planned for trial in sweep.trials]
    waiting = sweep.planned - len(planned)
    left = sum(run.planned - run.done for run in going) + waiting * sum(planned) / len(planned)
    return Pace(sum(speeds), left / sum(speeds))
