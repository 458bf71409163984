"""Computes how many trials run at once and how many client actors each has; does not use Ray.

Parallel trials take precedence over parallel actors: independent runs do not wait for each other,
while a round waits for its slowest actor. By default as many trials run at once as the cluster
holds with the fewest actors each, and only the resources left over give a trial more actors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hiso_ray.config import Experiment
from hiso_ray.errors import UserError
from hiso_ray.execution.memory import LIBRARIES, actor_bytes
from hiso_ray.execution.placement import Node, place
from hiso_ray.sweeps.table import Trial
from hiso_ray.tasks.contract import Count

Bundle = dict[str, float]


@dataclass(frozen=True)
class Room:
    """Cluster resources for the trials of a sweep.

    Attributes:
        concurrency: trials at once.
        bundles: of each trial, by id; the first is for the trial's own process, and empty with the
            ray executor, where that process only waits.
        memory: of ``concurrency`` trials as large as the largest [bytes], without activations.
    """

    concurrency: int
    bundles: dict[str, list[Bundle]]
    memory: int


def find_room(
    trials: Sequence[Trial],
    sizes: Mapping[str, Count],
    nodes: Sequence[Node],
    concurrency: int | None = None,
) -> Room:
    """Room for every trial of a sweep.

    Args:
        sizes: number of weights, by trial id.
        nodes: the machines of the cluster.
        concurrency: trials at once, as requested; None for as many as fit.

    Raises:
        UserError: the cluster cannot hold a trial, or that many at once; names the trial.
    """
    limits = {trial.id: _limit(trial, sizes[trial.id], nodes) for trial in trials}
    most = min(fits // least for least, fits in limits.values())
    concurrency = min(concurrency or most, len(trials))
    if concurrency > most:
        tight = min(trials, key=lambda trial: limits[trial.id][1] // limits[trial.id][0])
        least, fits = limits[tight.id]
        raise UserError(
            f"--concurrency {concurrency}: a trial ({tight.label}) needs {least} actor"
            f"{'s' if least > 1 else ''} of {_share(tight.experiment)}, and the cluster holds "
            f"{fits} such actors: at most --concurrency {most}"
        )
    bundles, memory = {}, [0]
    for trial in trials:
        share = limits[trial.id][1] // concurrency
        bundles[trial.id] = _bundles(trial.experiment, sizes[trial.id], nodes, share)
        waiting = LIBRARIES * (trial.experiment.resources.executor == "ray")
        actors = max(1, len(bundles[trial.id]) - 1)
        memory.append(actors * actor_bytes(trial.experiment, *sizes[trial.id]) + waiting)
    return Room(concurrency, bundles, concurrency * max(memory))


def _limit(trial: Trial, size: Count, nodes: Sequence[Node]) -> tuple[int, int]:
    """The fewest actors the trial runs on, and how many such actors the cluster holds."""
    experiment = trial.experiment
    if experiment.resources.gpus_per_client == "auto":
        raise UserError(
            "resources.gpus_per_client = auto: a sweep divides the GPUs before anything is "
            "measured; give a number (a single `hiso-ray run` with auto says which)"
        )
    try:
        fits = sum(place(_packed(experiment), nodes, *size).per_node)
        packing, clients = experiment.resources.clients_per_actor, experiment.federation.num_clients
        serial = experiment.resources.executor == "serial" or packing == "auto"
        least = 1 if serial else -(-clients // int(packing))
        place(experiment, nodes, *size)  # raises if the requested packing does not fit
    except UserError as error:
        raise UserError(f"trial {trial.label} cannot be placed: {error}") from error
    return least, fits


def _bundles(
    experiment: Experiment, size: Count, nodes: Sequence[Node], share: int
) -> list[Bundle]:
    resources = experiment.resources
    one = {"CPU": float(resources.cpus_per_client)}
    if resources.gpus_per_client:
        one["GPU"] = float(resources.gpus_per_client)
    else:
        one["memory"] = float(actor_bytes(experiment, *size))  # else Ray could overfill a node
    if resources.executor == "serial":
        return [one]
    most = share if resources.max_actors == "auto" else min(share, resources.max_actors)
    actors = place(experiment.changed(**{"resources.max_actors": most}), nodes, *size).actors
    return [{}, *([one] * actors)]


def _packed(experiment: Experiment) -> Experiment:
    automatic = {"resources.clients_per_actor": "auto", "resources.max_actors": "auto"}
    return experiment.changed(**automatic)


def _share(experiment: Experiment) -> str:
    resources = experiment.resources
    gpus = f" and {resources.gpus_per_client:g} GPU" if resources.gpus_per_client else ""
    return f"{resources.cpus_per_client:g} CPU{gpus}"
