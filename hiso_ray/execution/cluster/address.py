"""The cluster that ``RAY_ADDRESS`` points at, asked whether it is there.

Ray itself tries an address that nobody answers at for many minutes, and then ends the process
without naming it.
"""

from __future__ import annotations

import socket
import time

from ray._private.services import canonicalize_bootstrap_address

from hiso_ray.errors import UserError

SECONDS = 5.0  # until an address counts as one that nobody answers at
PAUSE = 0.5


def check_reachable(address: str, seconds: float = SECONDS) -> None:
    """
    Args:
        address: as ``RAY_ADDRESS`` has it: HOST:PORT, ray://HOST:PORT, auto or local.

    Raises:
        UserError: nothing answers there, or it is no address.
    """
    place = _place(address)
    if place is None:
        return
    host, _, port = place.rpartition(":")
    if not host or not port.isdecimal():
        raise unreachable(address, "it is no address: HOST:PORT, ray://HOST:PORT, auto or local")
    deadline = time.monotonic() + seconds
    while True:
        try:
            left = max(PAUSE, deadline - time.monotonic())
            socket.create_connection((host.strip("[]"), int(port)), timeout=left).close()
            return
        except (OSError, OverflowError) as error:  # a port above 65,535 overflows
            if isinstance(error, OverflowError) or time.monotonic() + PAUSE > deadline:
                raise unreachable(address, f"nothing answers at {place} ({error})") from None
        time.sleep(PAUSE)


def _place(address: str) -> str | None:
    """HOST:PORT; None where a cluster is started here."""
    if address.startswith("ray://"):
        return address.removeprefix("ray://").partition("/")[0].partition("?")[0]
    try:
        return canonicalize_bootstrap_address(address)
    except ConnectionError:
        raise unreachable(address, "no cluster runs on this machine") from None
    except (ValueError, OSError):
        return address


def unreachable(address: str, why: str) -> UserError:
    """What to say of an address at which there is no cluster."""
    return UserError(
        f"the environment has RAY_ADDRESS = {address}, and {why}. Start that cluster, correct the "
        "variable, or unset it for a local cluster"
    )
