"""Which clients of a cohort are evaluated together: a function of configuration and cohort alone.

A matrix product's last bits depend on how many rows it has. So what shares a forward pass, or a sum
of vectors, is fixed before anybody knows who computes it, and actors are dealt whole units.
"""

from __future__ import annotations

from collections.abc import Sequence

from hiso_ray.config import Experiment
from hiso_ray.server.optimizers import chunks

AUTO = 4  # enough to keep a processor busy, and at 8 clients a round work for two
Unit = tuple[int, ...]
"""Clients, ascending."""


def work_units(experiment: Experiment, clients: Sequence[int]) -> list[Unit]:
    """A cohort in client-id order -> its units, in that order.

    Methods that send weights add up fixed chunks of the cohort; clients that probe along shared
    directions share forward passes, ``task.clients_per_forward`` of them; all others are alone.
    """
    if experiment.sends_weights:
        return [tuple(chunk) for chunk in chunks(clients)]
    assert experiment.task.clients_per_forward != "auto", "the experiment is not resolved"
    size = _size(experiment)
    return [tuple(clients[i : i + size]) for i in range(0, len(clients), size)]


def clients_together(experiment: Experiment) -> int:
    """How many clients of a cohort share a forward pass at most."""
    return min(_size(experiment), experiment.federation.clients_per_round)


def _size(experiment: Experiment) -> int:
    if experiment.sends_weights or experiment.method.directions == "per_client":
        return 1
    size = experiment.task.clients_per_forward
    return AUTO if size == "auto" else size


def idle(experiment: Experiment, actors: int) -> str | None:
    """What to tell the user where units are too few to keep busy as many actors as could be."""
    cohort, size = experiment.federation.clients_per_round, clients_together(experiment)
    units, could = -(-cohort // size), min(cohort, actors)
    if experiment.sends_weights or units >= could:
        return None
    return (
        f"{units} of {actors} actors compute in a round: {cohort} clients, {size} to a forward "
        f"pass; task.clients_per_forward {max(1, cohort // could)} would keep {could} busy, and "
        "changes the last bits"
    )
