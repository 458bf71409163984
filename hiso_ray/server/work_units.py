"""Which clients of a cohort are evaluated together: a function of configuration and cohort alone.

The last bits of a matrix product depend on its number of rows. So the clients that share a forward
pass, or a sum of vectors, are fixed before actors are assigned, and actors get whole units.
"""

from __future__ import annotations

from collections.abc import Sequence

from hiso_ray.config import Experiment
from hiso_ray.server.optimizers import chunks

AUTO = 4  # enough to keep a processor busy; 8 clients a round are work for two actors
Unit = tuple[int, ...]
"""Clients, ascending."""


def work_units(experiment: Experiment, clients: Sequence[int]) -> list[Unit]:
    """Splits a cohort, in client-id order, into its units, in the same order.

    For methods that send weights, units are the chunks whose deltas are summed. Clients that probe
    along shared directions share forward passes, ``task.clients_per_forward`` of them to a unit.
    All others are units of one.
    """
    if experiment.sends_weights:
        return [tuple(chunk) for chunk in chunks(clients)]
    assert experiment.task.clients_per_forward != "auto", "the experiment is not resolved"
    size = _size(experiment)
    return [tuple(clients[i : i + size]) for i in range(0, len(clients), size)]


def clients_together(experiment: Experiment) -> int:
    """The largest number of clients of a cohort that share a forward pass."""
    return min(_size(experiment), experiment.federation.clients_per_round)


def _size(experiment: Experiment) -> int:
    method = experiment.method
    if experiment.sends_weights or method.row.projects or method.directions == "per_client":
        return 1
    size = experiment.task.clients_per_forward
    return AUTO if size == "auto" else size


def idle(experiment: Experiment, actors: int) -> str | None:
    """What to tell the user if there are too few units to keep the actors busy."""
    cohort, size = experiment.federation.clients_per_round, clients_together(experiment)
    units, could = -(-cohort // size), min(cohort, actors)
    if experiment.sends_weights or units >= could:
        return None
    return (
        f"{units} of {actors} actors compute in a round: {cohort} clients, {size} to a forward "
        f"pass; task.clients_per_forward {max(1, cohort // could)} would keep {could} busy, and "
        "changes the last bits"
    )
