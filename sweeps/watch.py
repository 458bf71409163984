"""Shows the progress of a running sweep, and records how each trial ends."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.util.placement_group import placement_group_table
from rich.console import Console

from hiso_ray.analysis.sweep_files import FAILED, FINISHED, STOPPED, UNFINISHED
from hiso_ray.cli.bars import Bar
from hiso_ray.sweeps.folder import add_outcome
from hiso_ray.sweeps.room import Room
from hiso_ray.sweeps.table import Trial

PATIENCE_SECONDS = 15.0  # without a running trial, before saying what trials wait for
SHOWN_SCORES = 4


class Watch(tune.Callback):
    """Ray Tune's callback that records and shows how trials end."""

    def __init__(
        self, console: Console, bar: Bar, folder: Path, trials: Mapping[str, Trial], room: Room
    ) -> None:
        self._console, self._bar = console, bar
        self._folder, self._trials, self._room = folder, trials, room
        self._ended: dict[str, str] = {}
        self._scores: dict[str, str] = {}
        self._idle_since = time.monotonic()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks for its own restore, which we do not use

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        # Overwrites the outcome of an earlier start, in case this one is killed.
        add_outcome(self._folder, trial.config["trial"], UNFINISHED, None)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if "score" in result:
            experiment = self._trials[trial.config["trial"]].experiment
            self._scores[trial.trial_id] = f"{experiment.task.metric} {result['score']:.2%}"
            self._show(trials)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        result = trial.last_result
        if result.get("finished"):
            self._end(trials, trial, FINISHED)
        elif "failed" in result:
            self._end(trials, trial, FAILED, result["failed"], result["error_kind"])
        else:
            self._end(trials, trial, STOPPED)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        error = trial.get_error()
        self._end(trials, trial, FAILED, f"its process died: {error}", type(error).__name__)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._note(
            f"{self._trials[trial.config['trial']].label}: its process died; it is started again, "
            "and goes on from its ledger"
        )

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        running = any(trial.status == "RUNNING" for trial in trials)
        waiting = [trial.config["trial"] for trial in trials if trial.status == "PENDING"]
        if running or not waiting:
            self._idle_since = time.monotonic()
        elif time.monotonic() > self._idle_since + PATIENCE_SECONDS:
            self._idle_since = time.monotonic()
            self._say_what_lacks(waiting[0])

    def _end(
        self,
        trials: list[Any],
        trial: Any,
        status: str,
        error: str | None = None,
        kind: str | None = None,
    ) -> None:
        name = trial.config["trial"]
        self._ended[name] = status
        if status != FINISHED:
            add_outcome(self._folder, name, status, error, kind)
        told = [f"[{len(self._ended)}/{len(self._trials)}] {self._trials[name].label}: {status}"]
        told += [self._scores[trial.trial_id]] if trial.trial_id in self._scores else []
        told += [(error or "").strip().splitlines()[-1]] if error else []
        self._note(", ".join(told))
        self._show(trials)

    def _show(self, trials: list[Any]) -> None:
        failed = sum(status == FAILED for status in self._ended.values())
        running = [trial for trial in trials if trial.status == "RUNNING"]
        scores = [self._scores[t.trial_id] for t in running if t.trial_id in self._scores]
        numbers = f"{len(running)} running {', '.join(scores[:SHOWN_SCORES])}"
        if failed:
            numbers += f"  {failed} failed"
        self._bar.show(len(self._ended), numbers)

    def _say_what_lacks(self, name: str) -> None:
        states = {group["state"] for group in placement_group_table().values()}
        if not states & {"PENDING", "RESCHEDULING"}:
            return  # a process is starting
        bundles = " + ".join(_words(bundle) for bundle in self._room.bundles[name] if bundle)
        have, free = ray.cluster_resources(), ray.available_resources()
        self._note(
            f"waiting: a trial needs {bundles}; the cluster has {_words(have)}, free now "
            f"{_words(free)}. Other work on the cluster may hold the rest"
        )

    def _note(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def _words(resources: Mapping[str, float]) -> str:
    found = [
        f"{resources.get(kind, 0.0):g} {kind}" for kind in ("CPU", "GPU") if resources.get(kind)
    ]
    return " and ".join(found) or "nothing"
