"""One client actor as the driver sees it, and how all of them are started."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from hiso_ray.config import Experiment
from hiso_ray.execution.cluster.reservation import Reservation
from hiso_ray.messages import Description, UserError

MAX_RESTARTS = 100  # of one actor in a run
START_SECONDS = 600.0  # for actors to start, and for one to come back when all are away
START_TOGETHER = 4  # actors importing torch at the same time


@dataclass
class Member:
    """One client actor as the driver sees it.

    Attributes:
        known: records it is known to hold.
        blind: it could not read the snapshot.
        born: tells one incarnation from the next.
        returning: pending while it is away; answered when it is back.
        gone_at: when it went away [s, monotonic].
        lost: it will not come back.
    """

    handle: Any
    known: int = 0
    blind: bool = False
    born: int = 0
    returning: ray.ObjectRef | None = None
    gone_at: float = 0.0
    lost: bool = False

    @property
    def present(self) -> bool:
        return self.returning is None and not self.lost

    def go(self) -> None:
        """It has died: whatever comes back stands at x_0."""
        self.known, self.blind = 0, False
        self.returning = self.handle.describe.remote()
        self.gone_at = time.monotonic()

    def come_back(self) -> str | None:
        """Its return is answered; why it will never come back, if so."""
        try:
            _, self.born = ray.get(self.returning)
            return None
        except RayError as error:
            self.lost = True
            return str(error)
        finally:
            self.returning = None


def start(
    experiment: Experiment,
    reservation: Reservation,
    shared: Sequence[ray.ObjectRef],
    actor_class: type,
) -> tuple[list[Member], Description]:
    """Starts the actors of a reservation, a few at a time.

    Returns:
        The members, and what each of them computes with.

    Raises:
        UserError: some did not start, or would not compute the same bits.
    """
    members: list[Member] = []
    descriptions: list[Description] = []
    for first in range(0, reservation.placement.actors, START_TOGETHER):
        numbers = range(first, min(first + START_TOGETHER, reservation.placement.actors))
        batch = [
            Member(
                ray.remote(**_options(experiment, reservation, number))(actor_class).remote(
                    experiment, *shared
                )
            )
            for number in numbers
        ]
        try:
            answers = ray.get([m.handle.describe.remote() for m in batch], timeout=START_SECONDS)
        except (GetTimeoutError, RayError) as error:
            raise UserError(
                f"client actors {numbers[0]} to {numbers[-1]} did not start (waited up to "
                f"{START_SECONDS:g} s): out of memory, or a node was lost? {error}"
            ) from error
        for member, (description, born) in zip(batch, answers, strict=True):
            member.born = born
            descriptions.append(description)
        members += batch
    different = [d for d in descriptions if d != descriptions[0]]
    if different:
        raise UserError(
            f"the actors would not compute the same bits: {descriptions[0]} and {different[0]}; "
            "run on nodes of one kind"
        )
    return members, descriptions[0]


def _options(experiment: Experiment, reservation: Reservation, number: int) -> dict[str, Any]:
    resources = experiment.resources
    return {
        "name": f"{reservation.label}/actor-{number:03d}",
        "num_cpus": resources.cpus_per_client,
        "num_gpus": resources.gpus_per_client,
        "max_restarts": MAX_RESTARTS,
        "scheduling_strategy": PlacementGroupSchedulingStrategy(
            placement_group=reservation.group,
            placement_group_bundle_index=reservation.bundles[number],
        ),
    }
