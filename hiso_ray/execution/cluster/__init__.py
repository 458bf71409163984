"""The same rounds on Ray: a driver actor without weights, client actors with one replica each.

The only package that imports ray. Who talks to whom::

    caller        (session, reservation) starts or joins a cluster, reserves a placement group,
                  puts x_0 and the data into the object store once, starts the driver actor,
                  restarts it if it dies, reads its news
    driver actor  (driver_actor, executor) runs ``driver.run_rounds`` in a thread and answers
                  ``news`` meanwhile; owns the client actors (fleet, members): sends each one
                  message per round and handles its failures
    client actor  (client_actor) a ``Worker``: catches up from records, takes a list of turns,
                  answers scalars
"""

import os
import secrets
import sys

# Ray reads these variables when it is imported. If the caller has imported Ray already, or points
# it at a cluster, nothing is changed. An empty variable counts as unset.
if not os.environ.get("RAY_ADDRESS") and "ray" not in sys.modules:
    # A cluster started here serves this process alone: its servers listen on loopback only (despite
    # its name, the variable does the same on Linux) and require a token. By default Ray would store
    # the token in the home directory, where it affects later clusters.
    given = os.environ.get("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER")
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = given or "0"
    if not any(map(os.environ.get, ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))):
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
# Messages that Ray would print between the progress lines; deaths are reported by this package.
_NOISE = (
    "PYTHON worker processes have been started",
    "A worker died or was killed while executing a task",
    "There are infinite retries remaining",
)
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "|".join(_NOISE))
