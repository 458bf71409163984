"""Clients' turns: minibatches -> local steps -> scalars. No Ray, no files.

All turns of a round start from the same x_r with the same directions, so the perturbed weights of
step 0 are built once for every client at hand; from step 1 on each client walks alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiso_ray.messages import NonFiniteLoss, Turn, TurnFailed, UserError
from hiso_ray.method.scalar import step_out_of_place
from hiso_ray.replica import Replica
from hiso_ray.sampling import minibatch
from hiso_ray.tasks.partition import Partition


def take_turns(
    replica: Replica, partition: Partition, clients: Sequence[int], seeds: Sequence[int]
) -> list[Turn]:
    """The turns of some of a round's clients; each one's result is as if it were alone.

    Raises:
        NonFiniteLoss: names the client, round and step, and what to lower.
        TurnFailed: from whatever else went wrong, naming the clients, round and step.
    """
    method, federation = replica.experiment.method, replica.experiment.federation

    def batch(client: int, step: int) -> Any:
        own, size = partition.of(client), replica.experiment.task.batch_size
        seed = replica.experiment.seed
        return replica.task.batch(minibatch(seed, replica.round, client, step, own, size))

    def measure(x: Tensor, who: Sequence[int], step: int) -> tuple[np.ndarray, np.ndarray]:
        try:
            g, loss = replica.probe.scalars(
                replica.task.losses,
                x,
                [batch(client, step) for client in who],
                seeds[step],
                replica.state,
                replica.directions,
                replica.buffer,
            )
        except UserError:
            raise
        except Exception as error:
            several = f"one of the clients {list(who)}" if len(who) > 1 else f"client {who[0]}"
            raise TurnFailed(
                f"{several}, round {replica.round}, local step {step}: "
                f"{type(error).__name__}: {error}"
            ) from error
        for client, scalars, value in zip(who, g, loss, strict=True):
            if not (np.isfinite(scalars).all() and np.isfinite(value)):
                raise _non_finite(replica, client, step, float(value), scalars)
        return g, loss

    scalars = np.empty((len(clients), federation.local_steps, method.num_perturbations), np.float32)
    losses = np.empty((len(clients), federation.local_steps))
    scalars[:, 0], losses[:, 0] = measure(replica.state.x, clients, 0)
    if federation.local_steps > 1:
        local = torch.empty_like(replica.state.x)
        for i, client in enumerate(clients):
            x = replica.state.x
            for step in range(1, federation.local_steps):
                x = step_out_of_place(
                    local, x, scalars[i, step - 1], seeds[step - 1], method.lr,
                    replica.state, replica.directions,
                )  # fmt: skip
                (scalars[i, step],), (losses[i, step],) = measure(x, [client], step)
    return [Turn(*one) for one in zip(map(int, clients), scalars, losses, strict=True)]


def _non_finite(
    replica: Replica, client: int, step: int, loss: float, scalars: np.ndarray
) -> NonFiniteLoss:
    method, dtype = replica.experiment.method, replica.experiment.task.dtype
    advice = [f"lower method.lr (now {method.lr:g})"]
    if np.isfinite(loss):
        advice.append(f"lower method.mu (now {method.mu:g})")
    if dtype != "float32":
        advice.append(f"use task.dtype float32 (now {dtype})")
    return NonFiniteLoss(
        f"non-finite loss: client {client}, round {replica.round}, local step {step} (loss {loss}, "
        f"scalars {scalars.tolist()}); {' or '.join(advice)}"
    )
