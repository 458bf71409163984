"""Computes how many client actors to start and how many clients each gets; does not use Ray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hiso_ray.config import Experiment, ResourcesConfig
from hiso_ray.config.resources import even_share
from hiso_ray.errors import UserError
from hiso_ray.execution.memory import actor_bytes, gpus_held


@dataclass(frozen=True)
class Placement:
    """How clients are distributed over actors.

    Attributes:
        actors: client actors.
        one_each: each client has an actor of its own (client id = actor number); otherwise
            clients are packed and any actor runs any client.
        line: a summary for the user.
        per_node: how many actors each node would hold.
    """

    actors: int
    one_each: bool
    line: str
    per_node: tuple[int, ...]


@dataclass(frozen=True)
class Node:
    """Resources of one machine of the cluster, as Ray counts them.

    Attributes:
        memory: bytes.
    """

    cpus: float
    gpus: float
    memory: float


def place(
    experiment: Experiment,
    nodes: Sequence[Node],
    dimension: int,
    frozen: int = 0,
    layer: int | None = None,
    activation: int = 0,
    layers: int = 1,
) -> Placement:
    """Gives each client an actor of its own if the nodes hold them all; else packs them evenly.

    Args:
        nodes: the machines of the cluster; each actor runs on one of them.
        dimension: d.
        frozen: weights of the model that are not trained.
        layer, activation, layers: as in :func:`actor_bytes`.

    Raises:
        UserError: not even one actor fits, or the requested packing needs more actors than fit.
    """
    resources, clients = experiment.resources, experiment.federation.num_clients
    need = actor_bytes(experiment, dimension, frozen, layer, activation, layers)
    per_node = tuple(_fits(resources, node, need) for node in nodes)
    fits = sum(per_node)
    if fits == 0:
        raise UserError(_why_not(resources, nodes, need))
    limit = fits if resources.max_actors == "auto" else min(fits, resources.max_actors)
    if resources.clients_per_actor == "auto":
        actors = clients if clients <= limit else limit
    else:
        actors = -(-clients // resources.clients_per_actor)
        if actors > limit:
            raise UserError(
                f"resources.clients_per_actor = {resources.clients_per_actor} needs {actors} "
                f"actors for {clients} clients, but {limit} fit: raise clients_per_actor to at "
                f"least {-(-clients // limit)}, or lower cpus_per_client or gpus_per_client"
            )
    one_each = actors == clients
    packed = "one each" if one_each else f"{-(-clients // actors)} per actor"
    share = f"{resources.cpus_per_client:g} CPU"
    if gpus := gpus_held(resources):
        share += f" and {gpus:g} GPU"
    plural = "s" if actors > 1 else ""
    line = f"{clients} clients on {actors} actor{plural}, {packed}, {share} each"
    return Placement(actors, one_each, line, per_node)


def share_for(held: int, total: int) -> float:
    """The GPU share for an actor that held ``held`` bytes: 10 % more than that, rounded up as far
    as the same number of actors still fits.

    Args:
        held: CUDA's own included, counted as at least ``CONTEXT``, which the cap subtracts.
    """
    fits = max(1, int(total / (1.1 * held)))
    return even_share(fits)


def _fits(resources: ResourcesConfig, node: Node, need: int) -> int:
    """Actors that one node holds."""
    fits = int(node.cpus / resources.cpus_per_client + 1e-9)
    share = gpus_held(resources)
    if share == 0:
        return int(min(fits, node.memory / need))
    if share >= 1:
        return min(fits, int(node.gpus / share))
    # Fractions do not span GPUs: 0.4 fits twice on one, not five times on two. A placement group's
    # bundle may itself hold a fraction of a GPU.
    whole, part = divmod(node.gpus, 1)
    on_gpus = int(whole) * int(1 / share + 1e-9) + int(part / share + 1e-9)
    return min(fits, on_gpus)


def _why_not(resources: ResourcesConfig, nodes: Sequence[Node], need: int) -> str:
    share = gpus_held(resources)
    largest = "the largest node has" if len(nodes) > 1 else "the cluster has"
    cpus, gpus, memory = (
        max(getattr(n, name) for n in nodes) for name in ("cpus", "gpus", "memory")
    )
    if cpus == 0:
        return (
            "no node of the cluster has CPUs yet: wait until its workers have joined (on an "
            "autoscaling cluster, give their type min_workers)"
        )
    if resources.cpus_per_client > cpus:
        return (
            f"resources.cpus_per_client = {resources.cpus_per_client:g}, but {largest} "
            f"{cpus:g} CPUs: lower cpus_per_client"
        )
    if share > gpus:
        return (
            f"resources.gpus_per_client = {share:g}, but {largest} {gpus:g} "
            "GPUs: start Ray where GPUs are, lower gpus_per_client, or leave it out to run on CPUs"
        )
    if share == 0 and need > memory:
        return (
            f"an actor needs about {need / 2**30:.1f} GiB for this model, but {largest} "
            f"{memory / 2**30:.1f} GiB: a smaller model, LoRA (task.lora.r 8), or "
            "method.curvature scalar or none"
        )
    return (
        f"no node holds {resources.cpus_per_client:g} CPUs and {share:g} GPUs "
        "together: lower cpus_per_client or gpus_per_client"
    )
