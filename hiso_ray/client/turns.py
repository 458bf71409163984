"""Clients' turns in the scalar family: minibatches -> local steps -> scalars. No Ray, no files.

All turns of a round start from the same x_r; with shared directions the perturbed weights of
step 0 are built once for all clients of a call, and a unit of clients is evaluated in one forward
pass (``work_units``). From step 1 on each client has its own local weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiso_ray.client.out_of_memory import is_full, out_of_memory
from hiso_ray.client.replica import Replica
from hiso_ray.config import Experiment
from hiso_ray.errors import NonFiniteLoss, TurnFailed, UserError
from hiso_ray.federation.partition import Partition
from hiso_ray.federation.sampling import minibatch
from hiso_ray.federation.traffic import scalars_per_turn
from hiso_ray.federation.uplink import encode
from hiso_ray.messages import Turn
from hiso_ray.method.scalar import step_out_of_place
from hiso_ray.seeds import Purpose, generator
from hiso_ray.server.privacy import clipped


class Clients:
    """The clients of a round on one replica: their minibatches, and what they measure."""

    def __init__(self, replica: Replica, partition: Partition) -> None:
        self.replica, self.partition = replica, partition

    def batch(self, who: Sequence[int], step: int) -> Any:
        """The minibatches of some clients at one local step, for one forward pass; every probe of
        the step is evaluated on them."""
        experiment, of = self.replica.experiment, self.partition.of
        seed, size = experiment.seed, experiment.task.batch_size
        return self.replica.task.batch(
            *(minibatch(seed, self.replica.round, i, step, of(i), size) for i in who)
        )

    def measure(
        self, x: Tensor, units: Sequence[Sequence[int]], step: int, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scalars and losses of clients that probe from x along the same directions; see
        ``Probe.scalars``.

        Args:
            units: groups of clients; each group shares a forward pass.

        Raises:
            NonFiniteLoss, UserError, TurnFailed: as :func:`take_turns`.
        """
        names = self.replica.naming.of(seed, units[0][0])

        def measured(some: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
            return self.replica.measure(x, [self.batch(unit, step) for unit in some], names)

        who = [client for unit in units for client in unit]
        try:
            g, loss = measured(units)
        except UserError:
            raise
        except Exception as error:
            # No retry on a full GPU: the error keeps the tensors that filled it alive.
            alone = x.dim() == 1 and not is_full(error)
            culprits = self._culprits(measured, who) if alone else who
            raise self.failed(culprits, step, error) from error
        for client, scalars, value in zip(who, g, loss, strict=True):
            if not (np.isfinite(scalars).all() and np.isfinite(value)):
                raise self.non_finite(client, step, float(value), f"scalars {scalars.tolist()}")
        return g, loss

    def walk(
        self, who: Sequence[int], seeds: Sequence[int], scalars: np.ndarray, losses: np.ndarray
    ) -> None:
        """Local steps 1 to τ-1 of some clients, each at its own local weights, measured together.

        Args:
            scalars: (clients, τ, S) float32; step 0 is given, the other steps are filled in.
            losses: (clients, τ) float64, likewise.
        """
        replica, method = self.replica, self.replica.experiment.method
        start = replica.state.x
        local = torch.empty(len(who), len(start), device=start.device)
        for step in range(1, len(seeds)):
            for i, client in enumerate(who):
                step_out_of_place(
                    local[i],
                    start if step == 1 else local[i],
                    _walked(replica.experiment, scalars[i, step - 1, : method.num_perturbations]),
                    replica.naming.of(seeds[step - 1], client),
                    replica.lr,
                    replica.state,
                    replica.directions,
                )
            x = local if replica.steps_together else local[0]
            scalars[:, step], losses[:, step] = self.measure(x, [who], step, seeds[step])

    def _culprits(
        self, measured: Callable[[Sequence[Sequence[int]]], object], who: Sequence[int]
    ) -> list[int]:
        """The clients that fail when measured alone, too; all of them if none does."""
        found = []
        for client in who if len(who) > 1 else ():
            try:
                measured([[client]])
            except Exception:
                found.append(client)
        return found or list(who)

    def failed(self, who: Sequence[int], step: int, error: Exception) -> TurnFailed | UserError:
        """What to raise instead of an error: UserError for a full GPU, since another actor would
        have no more memory, else TurnFailed."""
        several = f"one of the clients {list(who)}" if len(who) > 1 else f"client {who[0]}"
        where = f"{several}, round {self.replica.round}, local step {step}"
        if is_full(error):
            return out_of_memory(self.replica.experiment, self.replica.device, where, error)
        return TurnFailed(f"{where}: {type(error).__name__}: {error}")

    def non_finite(self, client: int, step: int, loss: float, what: str) -> NonFiniteLoss:
        method, dtype = self.replica.experiment.method, self.replica.experiment.task.dtype
        advice = [f"lower {rate}" for rate in method.rates]
        if np.isfinite(loss) and not (method.row.first_order or method.probe == "exact"):
            advice.append(f"lower method.mu (now {method.mu:g})")
        if dtype != "float32":
            advice.append(f"use task.dtype float32 (now {dtype})")
        return NonFiniteLoss(
            f"non-finite loss: client {client}, round {self.replica.round}, local step {step} "
            f"(loss {loss}, {what}); {' or '.join(advice)}"
        )


def take_turns(
    replica: Replica, partition: Partition, units: Sequence[Sequence[int]], seeds: Sequence[int]
) -> list[Turn]:
    """The turns of some of a round's units, client after client. No unit's results depend on the
    other units.

    Raises:
        NonFiniteLoss: names the client, round and step, and what to lower.
        UserError: a GPU, or the actor's share of it, is full.
        TurnFailed: any other failure; names the clients, round and step.
    """
    experiment, clients = replica.experiment, Clients(replica, partition)
    steps = experiment.federation.local_steps
    who = [client for unit in units for client in unit]
    scalars = np.empty((len(who), steps, scalars_per_turn(experiment) // steps), np.float32)
    losses = np.empty((len(who), steps))
    together = [units] if replica.naming.shared else [[unit] for unit in units]
    found = [clients.measure(replica.state.x, some, 0, seeds[0]) for some in together]
    scalars[:, 0] = np.concatenate([g for g, _ in found])
    losses[:, 0] = np.concatenate([loss for _, loss in found])
    if steps > 1:
        first = 0
        for some in units if replica.steps_together else [(client,) for client in who]:
            here = slice(first, first := first + len(some))
            clients.walk(some, seeds, scalars[here], losses[here])
    return [
        Turn(int(client), loss, payload(replica, int(client), g))
        for client, g, loss in zip(who, scalars, losses, strict=True)
    ]


def _walked(experiment: Experiment, g: np.ndarray) -> np.ndarray:
    """The scalars a client's local step uses: its own, or their signs if it sends only those."""
    signs = experiment.precision == "sign"
    return np.where(g >= 0, np.float32(1), np.float32(-1)) if signs else g


def payload(replica: Replica, client: int, scalars: np.ndarray) -> bytes:
    """What one client sends: its scalars, clipped if ``privacy.clip`` is set, and encoded."""
    experiment = replica.experiment
    if experiment.privacy.clip != "none":
        scalars = clipped(scalars, experiment.privacy.clip)
    coins = (experiment.seed, Purpose.QUANTIZE, replica.round, client)
    rng = generator(*coins) if experiment.precision == "int8" else None
    return encode(scalars, experiment.precision, rng)
