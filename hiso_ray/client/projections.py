"""Clients' turns in methods that project: minibatches -> local training -> K scalars of the change.

See ``method.projection``. All clients of a round project on the same directions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hiso_ray.client.replica import Replica
from hiso_ray.client.turns import Clients, payload
from hiso_ray.client.updates import train
from hiso_ray.federation.partition import Partition
from hiso_ray.messages import Turn


def take_projections(
    replica: Replica, partition: Partition, who: Sequence[int], seeds: Sequence[int]
) -> list[Turn]:
    """The turns of some of a round's clients, one after the other.

    Args:
        seeds: the round's only one.

    Raises:
        NonFiniteLoss: names the client, round and step, and what to lower.
        UserError: a GPU, or the actor's share of it, is full; or the loss has no gradient.
        TurnFailed: any other failure; names the client, round and step.
    """
    assert replica.blocks is not None
    clients, turns, (seed,) = Clients(replica, partition), [], seeds
    for client in who:
        change, losses = train(clients, client, seeds)
        scalars = replica.blocks.project(change.neg_(), seed)
        if not np.isfinite(scalars).all():
            raise clients.non_finite(client, len(losses) - 1, float(losses[-1]), "its scalars")
        turns.append(Turn(int(client), losses, payload(replica, int(client), scalars)))
    return turns
