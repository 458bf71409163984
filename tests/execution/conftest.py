"""Two nodes that only a cable connects."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
from namespaces import Network


@pytest.fixture
def network() -> Iterator[Network]:
    try:
        made = Network(2)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs iproute2 and the right to make network namespaces: {error}")
    yield made
    made.close()
