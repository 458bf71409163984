"""Clients' turns in methods that send weights: minibatches -> local training -> d-float deltas.

First-order methods train by SGD (``method.first_order``). FedZO (Fang et al. 2022, arXiv
2201.09531, algorithm 1) takes τ zeroth-order steps, each along P directions of the client's own,
uniform on the sphere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from hiso_ray.client.replica import Replica
from hiso_ray.client.turns import Clients
from hiso_ray.errors import UserError
from hiso_ray.federation.partition import Partition
from hiso_ray.messages import Turn
from hiso_ray.method.first_order import local_sgd
from hiso_ray.method.scalar import step_out_of_place
from hiso_ray.server.optimizers import add_up


def take_updates(
    replica: Replica, partition: Partition, who: Sequence[int], seeds: Sequence[int]
) -> list[Turn]:
    """The turns of one chunk of a cohort. The first one's ``update`` is the sum of all, weighted.

    Raises:
        NonFiniteLoss: names the client, round and step, and what to lower.
        UserError: a GPU, or the actor's share of it, is full.
        TurnFailed: any other failure; names the client, round and step.
    """
    clients, losses = Clients(replica, partition), []
    by_examples = replica.experiment.aggregation.weights == "examples"

    def weighted() -> Iterator[np.ndarray]:
        for client in who:
            change, loss = train(clients, client, seeds)
            losses.append(loss)
            if by_examples:
                change.mul_(len(partition.of(client)))
            yield change.cpu().numpy()

    total = add_up(weighted())
    return [
        Turn(int(client), loss, update=total if i == 0 else None)
        for i, (client, loss) in enumerate(zip(who, losses, strict=True))
    ]


def train(clients: Clients, client: int, seeds: Sequence[int]) -> tuple[Tensor, np.ndarray]:
    """x_{i,τ} - x_r, newly allocated, and the (τ,) losses of the local steps.

    Raises:
        NonFiniteLoss, UserError, TurnFailed: as :func:`take_updates`.
    """
    method = clients.replica.experiment.method
    steps = _descend if method.row.first_order else _probe
    change, losses = steps(clients, client, seeds)
    finite = np.isfinite(losses)
    if not (finite.all() and bool(torch.isfinite(change).all())):
        step = len(losses) - 1 if finite.all() else int(np.argmin(finite))
        raise clients.non_finite(client, step, float(losses[step]), "its weights")
    return change, losses


def _descend(clients: Clients, client: int, seeds: Sequence[int]) -> tuple[Tensor, np.ndarray]:
    replica = clients.replica
    method = replica.experiment.method

    def gradient(weights: Tensor, step: int) -> tuple[float, Tensor]:
        try:
            return replica.task.gradient(weights, clients.batch([client], step))
        except UserError:
            raise
        except Exception as error:
            raise clients.failed([client], step, error) from error

    return local_sgd(
        gradient,
        replica.state.x,
        steps=replica.experiment.federation.local_steps,
        lr=replica.lr,
        momentum=0.0 if method.row.projects else method.momentum,
        weight_decay=method.weight_decay,
        prox=method.prox,
    )


def _probe(clients: Clients, client: int, seeds: Sequence[int]) -> tuple[Tensor, np.ndarray]:
    replica = clients.replica
    start = replica.state.x
    local, losses = torch.empty_like(start), np.empty(len(seeds))
    x = start
    for step, seed in enumerate(seeds):
        (g,), (losses[step],) = clients.measure(x, [[client]], step, seed)
        names = replica.naming.of(seed, client)
        x = step_out_of_place(local, x, g, names, replica.lr, replica.state, replica.directions)
        replica.directions.forget()  # no other client uses them
    return local.sub_(start), losses
