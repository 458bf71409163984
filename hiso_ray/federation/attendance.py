"""Which clients of a cohort answer, drop out or are late, and how long the round takes.

A turn on the virtual clock is::

    download  (request + missed records) ÷ downlink rate
    compute   (forward passes · forward_seconds + missed · replay_seconds) ÷ speed · slowdown
    upload    payload ÷ uplink rate

with the byte counts of ``traffic``. The slowdown models stragglers: it is log-normal with median 1,
drawn for each (round, client). The clock leaves out the initial model, which every client has
before round 0, link latency, and the server's own work.

Whether a client answers, drops out or is late depends on (run seed, round, client) and on what it
missed, not on who else was sampled.
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
DECIMALS = 9  # nanoseconds: processors disagree on the last bit of exp()


@dataclass(frozen=True)
class Population:
    """What the driver knows about the clients.

    Attributes:
        sizes: (num_clients,) int64 number of examples of each client.
        devices: the clients' devices; None without a virtual clock.
    """

    sizes: np.ndarray
    devices: Devices | None


@dataclass(frozen=True)
class Attendance:
    """Which clients of a cohort answered in a round, and how long the round took.

    Attributes:
        answered: clients whose answers count, ascending.
        dropped: clients that dropped out during their turn, ascending.
        late: clients that would have answered after the deadline, ascending.
        seconds: length of the round on the virtual clock; 0 without one.
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

    With a deadline the server cannot tell that a client will not answer, so a round with a dropped
    or late client lasts until the deadline. Without one, the server notices a dropout at once: the
    round lasts as long as the slowest answer or the slowest download of a dropped client, whichever
    is longer.

    Args:
        clients: (m,) int64 the cohort, ascending.
        missed: (m,) int64 number of records each client must catch up with, and (m,) their bytes.
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
    """Turn times on these devices without jitter, for clients that missed no record.

    Attributes:
        fastest, median, slowest: over the clients [s].
        in_time: number of clients that meet the deadline; all of them without one.
    """

    fastest: float
    median: float
    slowest: float
    in_time: int


def outlook(sizes: Sizes, devices: Devices) -> Outlook:
    """The turn times to expect, before the run.

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
    """What to tell the user about the virtual clock before the run.

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
    """(m,) bool. Draw i belongs to client i, whatever the cohort."""
    if experiment.federation.dropout == 0:
        return np.zeros(len(clients), bool)
    rng = generator(experiment.seed, Purpose.DROPOUT, round_)
    return rng.random(clients[-1] + 1)[clients] < experiment.federation.dropout


def _slowdown(experiment: Experiment, round_: int, clients: np.ndarray) -> np.ndarray:
    """(m,) factors on each turn's compute time, drawn like :func:`_dropped`."""
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
    """Rounded up to 3 decimals, so that the printed number is long enough as a deadline."""
    return f"{math.ceil(seconds * 1000) / 1000:.3f}"
