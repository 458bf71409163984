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
from hiso_ray.errors import NodesLost, UserError
from hiso_ray.execution.cluster.cause_of_death import Deaths, Killed, Process, words
from hiso_ray.execution.cluster.client_actor import told
from hiso_ray.execution.cluster.reservation import Reservation
from hiso_ray.execution.cluster.shared import Shared
from hiso_ray.messages import Description

MAX_RESTARTS = 100  # of one actor in a run
START_SECONDS = 600.0  # for actors to start, and for one to come back when all are away
START_TOGETHER = 4  # actors importing torch at the same time
NODE_SECONDS = 5.0  # for Ray to find another place for actors whose node has left
CHECK_SECONDS = 1.0


@dataclass
class Member:
    """One client actor as the driver sees it.

    Attributes:
        known: number of records it is known to have applied.
        blind: it could not read the snapshot.
        born: distinguishes one incarnation from the next.
        returning: while it is away, a reference that becomes ready when it is back; else None.
        gone_at: when it went away [s, monotonic].
        distrusted: ``born`` of the incarnation that is being killed.
        lost: it will not come back.
        process: its current process, or the last before it went away; None before the first start.
    """

    handle: Any
    known: int = 0
    blind: bool = False
    born: int = 0
    returning: ray.ObjectRef | None = None
    gone_at: float = 0.0
    distrusted: int | None = None
    lost: bool = False
    process: Process | None = None

    @property
    def present(self) -> bool:
        return self.returning is None and not self.lost

    def go(self) -> None:
        """Marks it as dead; its next incarnation starts at x_0."""
        self.known, self.blind = 0, False
        self.returning = self.handle.describe.remote()
        self.gone_at = time.monotonic()

    def restart(self) -> None:
        """Kills it so that Ray restarts it: its state can no longer be trusted."""
        self.distrusted = self.born
        ray.kill(self.handle, no_restart=False)
        self.go()

    def killed(self, deaths: Deaths) -> list[Killed]:
        """Kills for memory of the processes that were to replace its last one."""
        return deaths.since(self.handle, self.process)

    def come_back(self, expected: Description) -> str | RayError | None:
        """Handles its return. If it is lost for good, returns why: an error if Ray has restarted it
        too often.

        Args:
            expected: what all members compute with; it may have come back on another kind of node.
        """
        answer, self.returning = self.returning, None
        try:
            description, self.born, process = ray.get(answer)
        except RayError as error:
            self.lost = True
            own = told(error)
            return error if own is None else str(own)
        if self.born == self.distrusted:  # it answered before it was killed
            time.sleep(0.05)
            self.returning = self.handle.describe.remote()
            return None
        self.process = process
        if description == expected:
            return None
        self.lost = True
        ray.kill(self.handle)
        return f"it came back where it would compute other bits: {description}, not {expected}"


def start(
    experiment: Experiment,
    reservation: Reservation,
    shared: Shared,
    actor_class: type,
    deaths: Deaths,
) -> tuple[list[Member], Description]:
    """Starts the actors of a reservation, a few at a time.

    Returns:
        The members, and what each of them computes with.

    Raises:
        UserError: some did not start, or would not compute the same bits.
        NodesLost: a node left meanwhile.
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
            answers = _described(batch, reservation, deaths, experiment.resources.tries)
        except (GetTimeoutError, RayError) as error:
            if own := told(error):
                raise own from error
            who = f"client actors {numbers[0]} to {numbers[-1]} did not start"
            killed = [killed for member in batch for killed in member.killed(deaths)]
            if killed:
                why = words(experiment, killed[-1], reservation.placement.actors, 0, "start")
                raise UserError(f"{why}\n{who}, killed {len(killed)} times") from None
            raise UserError(
                f"{who} (waited up to {START_SECONDS:g} s): out of memory? {error}"
            ) from error
        for member, (description, born, process) in zip(batch, answers, strict=True):
            member.born, member.process = born, process
            descriptions.append(description)
        members += batch
    different = [d for d in descriptions if d != descriptions[0]]
    if different:
        raise UserError(
            f"the actors would not compute the same bits: {descriptions[0]} and {different[0]}; "
            "run on nodes of one kind"
        )
    return members, descriptions[0]


def _described(
    members: Sequence[Member], reservation: Reservation, deaths: Deaths, tries: int
) -> list[Any]:
    """Waits until all have started, time is up, or one was killed for memory ``tries`` times.

    Raises:
        NodesLost: a node left meanwhile, and Ray finds no other place.
    """
    refs = [member.handle.describe.remote() for member in members]
    broken, deadline = 0, time.monotonic() + START_SECONDS
    while missing := ray.wait(refs, num_returns=len(refs), timeout=CHECK_SECONDS)[1]:
        broken = broken + 1 if reservation.broken() else 0
        if broken * CHECK_SECONDS >= NODE_SECONDS:
            raise NodesLost
        away = [member for member, ref in zip(members, refs, strict=True) if ref in missing]
        if time.monotonic() > deadline or any(len(m.killed(deaths)) >= tries for m in away):
            break
    return ray.get(refs, timeout=0.1)


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
