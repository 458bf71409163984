"""Estimates what a sweep will cost, before anything starts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from hiso_ray.analysis.identity import cell
from hiso_ray.cli.progress import readable_bytes, two_columns
from hiso_ray.config import Experiment
from hiso_ray.execution.placement import Node
from hiso_ray.federation.traffic import forward_passes
from hiso_ray.sweeps import folder as sweep_folder
from hiso_ray.sweeps.room import Room, find_room
from hiso_ray.sweeps.runner import count_weights
from hiso_ray.sweeps.table import Sweep, Trial
from hiso_ray.tracking.tracked import check_installed

SHOWN_VALUES = 8


@dataclass(frozen=True)
class Plan:
    """Size of a sweep; rounds, passes and evaluations are those of the trials still to be run.

    Attributes:
        cells: combinations without the seed, of the whole sweep.
        there: trials that the sweep folder holds already.
        forward_passes: of training, over one minibatch each, if every sampled client answers.
        evaluations: of the whole evaluation set.
        room: on this machine; None if the sweep will join another cluster, or has nothing to run.
    """

    trials: int
    cells: int
    there: int
    rounds: int
    forward_passes: int
    evaluations: int
    room: Room | None


def plan(trials: Sequence[Trial], out: Path, concurrency: int | None, early_stopping: bool) -> Plan:
    """The plan of a sweep's trials.

    Args:
        out: the sweep folder, which need not exist yet.

    Raises:
        UserError: this machine cannot hold a trial, or a tracker is not installed.
    """
    for trial in trials:
        check_installed(trial.experiment)
    todo = sweep_folder.missing(out, trials, early_stopping)
    experiments = [trial.experiment for trial in todo]
    here = not os.environ.get("RAY_ADDRESS")
    return Plan(
        trials=len(trials),
        cells=len({cell(trial.experiment) for trial in trials}),
        there=len(trials) - len(todo),
        rounds=sum(e.federation.rounds for e in experiments),
        forward_passes=sum(_forward_passes(e) for e in experiments),
        evaluations=sum(1 + -(-e.federation.rounds // e.eval.every) for e in experiments),
        room=find_room(todo, count_weights(todo), [_this_machine()], concurrency)
        if here and todo
        else None,
    )


def plan_table(sweep: Sweep, trials: Sequence[Trial], found: Plan) -> Table:
    """The table that ``--dry-run`` prints."""
    room = found.room
    return two_columns(
        f"{sweep.name}: a plan, nothing was run",
        (
            *([("about", sweep.about)] if sweep.about else []),
            *((name, _values(trials, name)) for name in _varied(trials)),
            ("cells", f"{found.cells:,} (combinations without the seed)"),
            ("trials", f"{found.trials:,}, of which {found.there:,} are there already"),
            ("rounds", f"{found.rounds:,}"),
            ("forward passes", f"{found.forward_passes:,} of training"),
            ("evaluations", f"{found.evaluations:,} of the whole evaluation set"),
            ("at once", _at_once(room)),
            (
                "memory of the actors",
                f"about {readable_bytes(room.memory)} without activations" if room else "–",
            ),
        ),
    )


def _forward_passes(experiment: Experiment) -> int:
    federation = experiment.federation
    turns = federation.rounds * federation.clients_per_round
    return turns * forward_passes(experiment.method, federation.local_steps)


def _this_machine() -> Node:
    import torch

    return Node(len(os.sched_getaffinity(0)), torch.cuda.device_count(), float("inf"))


def _at_once(room: Room | None) -> str:
    if room is None:
        return "decided when the sweep has joined its cluster"
    actors = max(max(1, len(bundles) - 1) for bundles in room.bundles.values())
    return f"{room.concurrency} trials of up to {actors} actor(s) on this machine"


def _varied(trials: Sequence[Trial]) -> list[str]:
    return list(dict.fromkeys(name for trial in trials for name in trial.values))


def _values(trials: Sequence[Trial], name: str) -> str:
    found = list(dict.fromkeys(str(t.values[name]) for t in trials if name in t.values))
    more = f" … ({len(found)} in all)" if len(found) > SHOWN_VALUES else ""
    return ", ".join(found[:SHOWN_VALUES]) + more
