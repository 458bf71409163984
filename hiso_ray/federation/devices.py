"""The clients' devices: compute speed and link rates.

``drawn`` devices are log-normal around their medians and depend on (run seed, client) alone, so a
larger federation keeps the devices of a smaller one. Measured devices come from a CSV file.
"""

from __future__ import annotations

import csv
import hashlib
import math
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np

from hiso_ray.config import Experiment
from hiso_ray.errors import UserError
from hiso_ray.seeds import Purpose, generator

SMALLEST, LARGEST = 1e-6, 1e6


@dataclass(frozen=True)
class Devices:
    """One device per client, each array (num_clients,) float64.

    Attributes:
        speed: relative; a device of speed 2 computes in half the time of one of speed 1.
        uplink_mbps, downlink_mbps: rates of its link [10^6 bit/s].
    """

    speed: np.ndarray
    uplink_mbps: np.ndarray
    downlink_mbps: np.ndarray


NAMES = tuple(field.name for field in fields(Devices))


def resolve(experiment: Experiment) -> Experiment:
    """The same experiment, with an absolute profile path: a run may resume elsewhere."""
    profile = experiment.devices.profile
    if profile in ("none", "drawn"):
        return experiment
    return experiment.changed(**{"devices.profile": str(Path(profile).expanduser().resolve())})


def of(experiment: Experiment) -> Devices | None:
    """The devices of ``devices.profile``, or None without a virtual clock.

    Raises:
        UserError: the file is missing or lacks a column, a client is missing, listed twice or
            outside the federation, or a value is not a number from 1e-6 to 1e6.
    """
    num_clients = experiment.federation.num_clients
    match experiment.devices.profile:
        case "none":
            return None
        case "drawn":
            return _draw(experiment)
        case path:
            return _read(Path(path), num_clients)


def digest(devices: Devices | None) -> str:
    """SHA-256 over the values, in hex; ``none`` without devices."""
    if devices is None:
        return "none"
    found = hashlib.sha256()
    for values in astuple(devices):
        found.update(values.astype("<f8").tobytes())
    return found.hexdigest()


def _draw(experiment: Experiment) -> Devices:
    config, num_clients = experiment.devices, experiment.federation.num_clients
    normal = generator(experiment.seed, Purpose.DEVICES).standard_normal((num_clients, 2))
    speed = np.exp(config.speed_spread * normal[:, 0])
    link = np.exp(config.bandwidth_spread * normal[:, 1])
    return Devices(
        _six_digits(speed),
        _six_digits(config.uplink_mbps * link),
        _six_digits(config.downlink_mbps * link),
    )


def _six_digits(values: np.ndarray) -> np.ndarray:
    """Rounds to 6 decimal digits: processors disagree on the last bit of exp(), and a run resumed
    on another machine must get the same devices."""
    return np.array([float(f"{value:.6g}") for value in values])


def _read(path: Path, num_clients: int) -> Devices:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            absent = [name for name in ("client", *NAMES) if name not in (table.fieldnames or ())]
            if absent:
                raise UserError(
                    f"devices.profile {path} has no column {', '.join(absent)}: its first line "
                    f"must name client, {', '.join(NAMES)}"
                )
            values: dict[int, list[float]] = {}
            for row in table:
                where = f"devices.profile {path}, line {table.line_num}"
                client = _client(row["client"], num_clients, where)
                if client in values:
                    raise UserError(f"{where}: client {client} has a row already, remove one")
                values[client] = [_number(name, row[name], where) for name in NAMES]
    except OSError as error:
        raise UserError(
            f"devices.profile = {path}: {error.strerror}; give none, drawn or a CSV file"
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"devices.profile {path} is not a CSV file in UTF-8: {error}") from error
    missing = [client for client in range(num_clients) if client not in values]
    if missing:
        raise UserError(
            f"devices.profile {path} has no row for {len(missing)} of {num_clients} clients, the "
            f"first is client {missing[0]}: add a row for each, or lower federation.num_clients"
        )
    columns = np.array([values[client] for client in range(num_clients)]).T
    return Devices(*np.ascontiguousarray(columns))


def _client(text: str | None, num_clients: int, where: str) -> int:
    client = int(text) if text is not None and text.strip().isdecimal() else -1
    if not 0 <= client < num_clients:
        raise UserError(
            f"{where}: client = {text}, the federation's are 0 to {num_clients - 1} "
            "(federation.num_clients)"
        )
    return client


def _number(name: str, text: str | None, where: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not SMALLEST <= value <= LARGEST:
        raise UserError(f"{where}: {name} = {text}, give a number from {SMALLEST:g} to {LARGEST:g}")
    return value
