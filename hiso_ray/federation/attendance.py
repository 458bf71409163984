"""Who of a cohort answers, who goes away, who comes too late, and how long the round takes.

A turn on the virtual clock is::

    download  (request + missed records) ÷ rate down
    compute   (forward passes · forward_seconds + missed · replay_seconds) ÷ speed · slowdown
    upload    what it measured ÷ rate up

with the bytes of ``traffic``. The slowdown is log-normal with median 1, drawn for each (round,
client): stragglers. Not on the clock: the initial model, which every client has before round 0,
the latency of links, and the server's own work.

A client's fate in a round is a function of (run seed, round, client) and of what it missed; it
does not depend on who else was sampled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hiso_ray.config import Experiment
from hiso_ray.errors import UserError
from hiso_ray.federation.devices import Devices
from hiso_ray.federation.traffic import Sizes, forward_passes
from hiso_ray.seeds import Purpose, generator

SECONDS_PER_BYTE = 8e-6  # at 1 Mbit/s
DECIMALS = 9  # the last bit of an exponential differs between processors; nanoseconds do not


@dataclass(frozen=True)
class Population:
    """What the driver knows of the clients.

    Attributes:
        sizes: (num_clients,) int64 examples that each holds.
        devices: what they run on; None where there is no virtual clock.
    """

    sizes: np.ndarray
    devices: Devices | None


@dataclass(frozen=True)
class Attendance:
    """How a cohort fared in one round.

    Attributes:
        answered: clients whose answers count, ascending.
        dropped: clients that went away during their turn, ascending.
        late: clients that would have answered after the deadline, ascending.
        seconds: length of the round on the virtual clock; 0 where there is none.
    """

    answered: tuple[int, ...]
    dropped: tuple[int, ...]
    late: tuple[int, ...]
    seconds: float


def attend(
    sizes: Sizes,
    devices: Devices | None,
    round_: int,
    clients: np.ndarray,
    missed: tuple[np.ndarray, np.ndarray],
) -> Attendance:
    """The attendance of a round; a pure function of its arguments.

    With a deadline the server does not know of a client that it will not answer, so a round in
    which anyone drops or is late lasts until the deadline. Without one, it notices at once that a
    client has gone: the round lasts as long as the slowest answer, or as the slowest download of
    those that dropped, whichever is longer.

    Args:
        clients: (m,) int64 the cohort, ascending.
        missed: (m,) int64 records that each must catch up with, and their bytes.
    """
    experiment = sizes.experiment
    gone = _dropped(experiment, round_, clients)
    if devices is None:
        return Attendance(_ids(clients[~gone]), _ids(clients[gone]), (), 0.0)
    slowdown = _slowdown(experiment, round_, clients)
    download, turn = _seconds(sizes, devices, clients, missed, slowdown)
    deadline = _deadline(experiment)
    late = ~gone & (turn > deadline)
    waits = math.isfinite(deadline) and bool((gone | late).any())
    return Attendance(
        answered=_ids(clients[~gone & ~late]),
        dropped=_ids(clients[gone]),
        late=_ids(clients[late]),
        seconds=deadline if waits else float(np.where(gone, download, turn).max()),
    )


@dataclass(frozen=True)
class Outlook:
    """Turns on these devices without jitter, of clients that missed no record.

    Attributes:
        fastest, median, slowest: over the clients [s].
        in_time: how many clients meet the deadline; all without one.
    """

    fastest: float
    median: float
    slowest: float
    in_time: int


def outlook(sizes: Sizes, devices: Devices) -> Outlook:
    """What to expect of the clock before the run.

    Raises:
        UserError: no client can meet ``devices.deadline``.
    """
    clients = np.arange(len(devices.speed))
    nothing = np.zeros_like(clients)
    _, turn = _seconds(sizes, devices, clients, (nothing, nothing), 1.0)
    deadline = _deadline(sizes.experiment)
    found = Outlook(
        float(turn.min()), float(np.median(turn)), float(turn.max()), int((turn <= deadline).sum())
    )
    if found.in_time == 0:
        raise UserError(
            f"devices.deadline = {deadline:g} s, which none of the {len(turn)} clients can meet: "
            f"without jitter a turn takes {found.fastest:.4g} s on the fastest device and "
            f"{found.median:.4g} s on the median one; raise it to {_up(found.median)} for half of "
            f"the clients, and to no less than {_up(found.fastest)}"
        )
    return found


def describe(sizes: Sizes, devices: Devices | None) -> list[str]:
    """What to tell the user of the clock before the run.

    Raises:
        UserError: no client can meet ``devices.deadline``.
    """
    if devices is None:
        return []
    found, deadline = outlook(sizes, devices), _deadline(sizes.experiment)
    line = (
        f"without jitter a turn takes {found.fastest:.3g} to {found.slowest:.3g} s, "
        f"{found.median:.3g} s on the median device"
    )
    if math.isfinite(deadline):
        total = len(devices.speed)
        line += f"; {found.in_time} of {total} clients can meet the deadline of {deadline:g} s"
    return [line]


def _dropped(experiment: Experiment, round_: int, clients: np.ndarray) -> np.ndarray:
    """(m,) bool. The draw at place i belongs to client i, whoever is in the cohort."""
    if experiment.federation.dropout == 0:
        return np.zeros(len(clients), bool)
    rng = generator(experiment.seed, Purpose.DROPOUT, round_)
    return rng.random(clients[-1] + 1)[clients] < experiment.federation.dropout


def _slowdown(experiment: Experiment, round_: int, clients: np.ndarray) -> np.ndarray:
    """(m,) factors on the time that each turn computes, drawn like :func:`_dropped`."""
    rng = generator(experiment.seed, Purpose.JITTER, round_)
    return np.exp(experiment.devices.jitter * rng.standard_normal(clients[-1] + 1)[clients])


def _seconds(
    sizes: Sizes,
    devices: Devices,
    clients: np.ndarray,
    missed: tuple[np.ndarray, np.ndarray],
    slowdown: np.ndarray | float,
) -> tuple[np.ndarray, np.ndarray]:
    """(m,) seconds of each client's download, and of its whole turn."""
    config, (records, records_bytes) = sizes.experiment.devices, missed
    download = SECONDS_PER_BYTE * (sizes.request + records_bytes) / devices.downlink_mbps[clients]
    forwards = forward_passes(sizes.experiment.method, sizes.experiment.federation.local_steps)
    work = forwards * config.forward_seconds + records * config.replay_seconds
    compute = work / devices.speed[clients] * slowdown
    upload = SECONDS_PER_BYTE * sizes.up / devices.uplink_mbps[clients]
    return np.round(download, DECIMALS), np.round(download + compute + upload, DECIMALS)


def _deadline(experiment: Experiment) -> float:
    deadline = experiment.devices.deadline
    return math.inf if isinstance(deadline, str) else deadline


def _ids(clients: np.ndarray) -> tuple[int, ...]:
    return tuple(clients.tolist())


def _up(seconds: float) -> str:
    """In words that, taken as the deadline, are not below it."""
    return f"{math.ceil(seconds * 1000) / 1000:.3f}"
