"""Runs a sweep on Ray Tune, from its table to its parquet files.

::

    table ──> trials ──> run folders on disk say which are missing
                              │ only those
    every task read and put into the object store once, every trial's partition checked
                              │
    Tuner: a placement group per trial, an ordinary ``run`` (or ``resume``) in each
                              │ whether they finish or fail
    trials.parquet, rounds.parquet
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from hiso_ray import progress, tasks
from hiso_ray.cli.bars import Bar, Steps
from hiso_ray.config import Experiment
from hiso_ray.errors import UserError
from hiso_ray.execution.cluster.reservation import cluster_nodes
from hiso_ray.execution.cluster.session import joined_cluster
from hiso_ray.execution.cluster.shared import Once, SharedTask, publish
from hiso_ray.federation.partition import split
from hiso_ray.sweeps import folder as sweep_folder
from hiso_ray.sweeps.room import Room, find_room
from hiso_ray.sweeps.table import Sweep, Trial
from hiso_ray.tasks.contract import Count
from hiso_ray.tasks.threads import threads_for
from hiso_ray.tracking.tracked import check_installed

DEATHS = 3  # of a trial's process or node, before the trial counts as failed
QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the run folders hold everything
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the sweep, resume continues it
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial that failed has no score
    # A stopped trial may need time to close its files; if Tune stops waiting for it, the process
    # cannot take the next trial.
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "600",
}


def run_sweep(
    sweep: Sweep,
    out: Path | str,
    *,
    concurrency: int | None = None,
    resume: bool = False,
    early_stopping: bool = False,
    console: Console | None = None,
) -> pd.DataFrame:
    """Runs the trials that a sweep folder lacks; returns all trials (``docs/columns.md``).

    Args:
        out: the sweep folder, new or empty; with ``resume``, one that holds this sweep or a part of
            it. Every node of the cluster must see it.
        concurrency: trials at once; by default as many as the cluster holds.
        early_stopping: ASHA stops trials that fall behind, so budgets are no longer equal.
        console: where progress is shown; nowhere by default.

    Raises:
        UserError: the table contains an invalid experiment, a tracker is not installed, the cluster
            cannot hold a trial, or the folder holds another plan; nothing has been started.
        FileExistsError: ``out`` holds something and ``resume`` was not asked for.
    """
    console = console or Console(quiet=True)
    out = Path(out).resolve()
    trials = sweep.trials()
    for trial in trials:
        check_installed(trial.experiment)
    with sweep_folder.opened(out, sweep, trials, resume):
        todo = sweep_folder.missing(out, trials, early_stopping)
        if len(todo) < len(trials):
            console.print(f"{len(trials) - len(todo)} of {len(trials)} trials are there already")
        for move in sweep_folder.moved(out, trials):
            console.print(f"warning: {move}: taken to be the same", markup=False, soft_wrap=True)
        for change in sweep_folder.unmeasured(out, trials):
            console.print(
                f"warning: {change}: trials that are there already are not measured again, and the "
                "tables say what each was run with",
                markup=False,
                soft_wrap=True,
            )
        if not todo:
            sweep_folder.write_plan(out, sweep)
            return sweep_folder.collect(out, trials)
        with joined_cluster():
            room = find_room(todo, count_weights(todo), cluster_nodes(), concurrency)
            console.print(_describe(todo, room), highlight=False, soft_wrap=True)
            with Steps(console):
                shared = share_tasks(todo)
            sweep_folder.write_plan(out, sweep)
            sweep_folder.outdate(out)
            try:
                _run(todo, out, room, shared, early_stopping, console)
            finally:
                table = sweep_folder.collect(out, trials)
    return table


def _run(
    todo: Sequence[Trial],
    out: Path,
    room: Room,
    shared: Mapping[str, SharedTask],
    early_stopping: bool,
    console: Console,
) -> None:
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    import ray
    from ray import tune

    from hiso_ray.sweeps.trial import Assignment, run_trial
    from hiso_ray.sweeps.watch import Watch

    assignments = {
        trial.id: Assignment(
            trial.experiment, sweep_folder.run_folder(out, trial), shared[trial.id]
        )
        for trial in todo
    }

    def bundles(config: dict[str, Any]) -> tune.PlacementGroupFactory:
        return tune.PlacementGroupFactory(room.bundles[config["trial"]])

    # Not by Tune's `with_parameters`, which keeps its arguments for the whole session.
    trainable = partial(run_trial, assignments=ray.put(assignments))
    with Bar(console, "trial", len(todo)) as bar:
        watch = Watch(console, bar, out, {trial.id: trial for trial in todo}, room)
        tune.Tuner(
            tune.with_resources(trainable, bundles),
            param_space={"trial": tune.grid_search(list(assignments))},
            tune_config=tune.TuneConfig(
                max_concurrent_trials=room.concurrency,
                reuse_actors=True,
                scheduler=_asha(todo) if early_stopping else None,
                trial_name_creator=lambda trial: trial.config["trial"],
                trial_dirname_creator=lambda trial: trial.config["trial"],
            ),
            run_config=tune.RunConfig(
                name=_fresh_name(),
                storage_path=str(out / "tune"),
                callbacks=[watch],
                # In a notebook Tune's own, silent or not, erases what the cell has printed.
                progress_reporter=tune.CLIReporter(),
                failure_config=tune.FailureConfig(max_failures=DEATHS),
                verbose=0,
            ),
        ).fit()


def count_weights(trials: Sequence[Trial]) -> dict[str, Count]:
    """Number of weights by trial, each model counted once; activations count as 0, because they
    depend on data that is not read yet."""
    counts: dict[str, Count] = {}
    for trial in trials:
        key = trial.experiment.task.model_dump_json()
        if key not in counts:
            counts[key] = tasks.count(trial.experiment)._replace(activation=0)
    return {trial.id: counts[trial.experiment.task.model_dump_json()] for trial in trials}


def share_tasks(trials: Sequence[Trial]) -> dict[str, SharedTask]:
    """Reads each task once and puts its data and x_0 into the object store; by trial.

    Raises:
        UserError: a model or data are missing, or the examples are too few for the federation.
    """
    once = Once()
    shared: dict[str, SharedTask] = {}
    alike: dict[str, list[Trial]] = {}
    for trial in trials:
        alike.setdefault(_source(trial.experiment), []).append(trial)
    for group in progress.parts("tasks read", alike.values()):
        prepared = tasks.prepare(group[0].experiment)
        for trial in group:
            federation, seed = trial.experiment.federation, trial.experiment.seed
            try:
                split(federation, prepared.labels, seed)
            except UserError as error:
                raise UserError(f"{error}\n  with {trial.label}") from error
        shared |= dict.fromkeys((trial.id for trial in group), publish(prepared, once))
    return shared


def _source(experiment: Experiment) -> str:
    """A key of everything that decides a prepared task."""
    task = experiment.task
    # The last bits of gradients, and so a measured mask, depend on the number of threads.
    threads = threads_for(experiment) if task.sparse_by == "sensitivity" else 0
    return f"{task.model_dump_json()} {experiment.federation.by} {experiment.seed} {threads}"


def _asha(trials: Sequence[Trial]) -> Any:
    from ray.tune.schedulers import ASHAScheduler

    most = max(trial.experiment.federation.rounds for trial in trials)
    return ASHAScheduler(
        time_attr="round", metric="score", mode="max", max_t=most, grace_period=max(1, most // 4)
    )


def _describe(todo: Sequence[Trial], room: Room) -> str:
    actors = sorted({max(1, len(bundles) - 1) for bundles in room.bundles.values()})
    each = f"{actors[0]}" if len(actors) == 1 else f"{actors[0]} to {actors[-1]}"
    return f"{len(todo)} trials, {room.concurrency} at once, each on {each} actor(s)"


def _fresh_name() -> str:
    """A new name per start, so that each start has its own Tune records."""
    return f"start-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
