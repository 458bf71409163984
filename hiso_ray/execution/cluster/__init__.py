"""The same rounds on Ray: a driver actor without weights, client actors with one replica each.

The only package that imports ray. Who talks to whom::

    caller        (session, reservation) starts or joins a cluster, reserves a placement group,
                  puts x_0 and the data into the object store once, starts the driver actor (again,
                  if it dies), reads its news
    driver actor  (driver_actor, executor) runs ``driver.run_rounds`` in a thread and answers
                  ``news`` meanwhile; owns the client actors (fleet, members): one message to each
                  per round, and whatever becomes of them
    client actor  (client_actor) a ``Worker``: catches up from records, takes a list of turns,
                  answers scalars
"""

import os
import secrets
import sys

# Ray reads these when it is imported. Where the caller has imported it before, or points it at a
# cluster, everything stays as the caller has it. A variable that is empty is one that is not set.
if not os.environ.get("RAY_ADDRESS") and "ray" not in sys.modules:
    # A cluster started here is for this process alone: its servers listen on loopback only (the
    # variable's name tells where Ray needs it; its effect is the same on Linux) and want a token,
    # which by default Ray would leave in the home directory, where it changes later clusters.
    given = os.environ.get("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER")
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = given or "0"
    if not any(map(os.environ.get, ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))):
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
# What Ray would print between the progress lines. A death is told by a line of ours.
_NOISE = (
    "PYTHON worker processes have been started",
    "A worker died or was killed while executing a task",
    "There are infinite retries remaining",
)
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "|".join(_NOISE))
