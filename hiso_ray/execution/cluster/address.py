"""Checks that the cluster at ``RAY_ADDRESS`` is reachable.

Ray itself retries an unreachable address for many minutes, and then ends the process without naming
the address.
"""

from __future__ import annotations

import socket
import time

from ray._private.services import canonicalize_bootstrap_address

from hiso_ray.errors import UserError

SECONDS = 5.0  # until an address counts as unreachable
PAUSE = 0.5


def check_reachable(address: str, seconds: float = SECONDS) -> None:
    """
    Args:
        address: the value of ``RAY_ADDRESS``: HOST:PORT, ray://HOST:PORT, auto or local.

    Raises:
        UserError: nothing answers there, or it is not an address.
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
    """HOST:PORT; None if a cluster is to be started here."""
    if address.startswith("ray://"):
        return address.removeprefix("ray://").partition("/")[0].partition("?")[0]
    try:
        return canonicalize_bootstrap_address(address)
    except ConnectionError:
        raise unreachable(address, "no cluster runs on this machine") from None
    except (ValueError, OSError):
        return address


def unreachable(address: str, why: str) -> UserError:
    """The error for an address without a cluster."""
    return UserError(
        f"the environment has RAY_ADDRESS = {address}, and {why}. Start that cluster, correct the "
        "variable, or unset it for a local cluster"
    )
