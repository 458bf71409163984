"""How many client actors, and how many clients on each: arithmetic, no Ray."""

from __future__ import annotations

from dataclasses import dataclass

from hiso_ray.config import Experiment, ResourcesConfig


@dataclass(frozen=True)
class Placement:
    """Who runs where.

    Attributes:
        actors: client actors.
        one_each: each client has an actor of its own (client id = actor number); otherwise
            clients are packed and any actor runs any client.
        line: what the user is told.
    """

    actors: int
    one_each: bool
    line: str


def place(experiment: Experiment, cpus: float, gpus: float) -> Placement:
    """One client per actor where the cluster holds them all, else evenly packed.

    Args:
        cpus, gpus: what the cluster (or the trial) has in total.

    Raises:
        ValueError: not even one actor fits, or the packing asked for needs more than there is.
    """
    resources, clients = experiment.resources, experiment.federation.num_clients
    fits = _fits(resources, cpus, gpus)
    limit = fits if resources.max_actors == "auto" else min(fits, resources.max_actors)
    if resources.clients_per_actor == "auto":
        actors = clients if clients <= limit else limit
    else:
        actors = -(-clients // resources.clients_per_actor)
        if actors > limit:
            raise ValueError(
                f"resources.clients_per_actor = {resources.clients_per_actor} needs {actors} "
                f"actors for {clients} clients, but {limit} fit: raise clients_per_actor to at "
                f"least {-(-clients // limit)}, or lower cpus_per_client or gpus_per_client"
            )
    one_each = actors == clients
    packed = "one each" if one_each else f"{-(-clients // actors)} per actor"
    share = f"{resources.cpus_per_client:g} CPU"
    if resources.gpus_per_client:
        share += f" and {resources.gpus_per_client:g} GPU"
    line = f"{clients} clients on {actors} actor{'s' * (actors > 1)}, {packed}, {share} each"
    return Placement(actors, one_each, line)


def _fits(resources: ResourcesConfig, cpus: float, gpus: float) -> int:
    fits = int(cpus / resources.cpus_per_client + 1e-9)
    if fits < 1:
        raise ValueError(
            f"resources.cpus_per_client = {resources.cpus_per_client:g}, but the cluster has "
            f"{cpus:g} CPUs: lower cpus_per_client"
        )
    share = resources.gpus_per_client
    if share == 0:
        return fits
    # Fractions do not span GPUs: 0.4 fits twice on one, not five times on two.
    on_gpus = int(gpus) * int(1 / share + 1e-9) if share < 1 else int(gpus / share)
    if on_gpus < 1:
        raise ValueError(
            f"resources.gpus_per_client = {share:g}, but the cluster has {gpus:g} GPUs: start Ray "
            "where GPUs are, lower gpus_per_client, or leave it out to run on CPUs"
        )
    return min(fits, on_gpus)
