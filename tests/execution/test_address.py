"""Where RAY_ADDRESS points at, and a folder for temporary files that is too long for Ray."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from hiso_ray.errors import UserError
from hiso_ray.execution.cluster import address

MAIN = [sys.executable, "-m", "hiso_ray", "run", "--task.name", "digits"]


def free_port() -> int:
    with socket.socket() as some:
        some.bind(("127.0.0.1", 0))
        port: int = some.getsockname()[1]
        return port


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("192.0.2.255:PORT", "nothing answers at 192.0.2.255:"),
        ("ray://127.0.0.1:PORT/space", r"nothing answers at 127.0.0.1:\d+ \("),
        ("[2001:db8::1]:PORT", r"nothing answers at \[2001:db8::1\]:"),
        ("no-such-host.invalid:6379", "nothing answers at no-such-host.invalid:6379"),
        ("host:99999", "nothing answers at host:99999"),
        ("nonsense", "it is no address: HOST:PORT"),
        ("host:ray", "it is no address: HOST:PORT"),
        ("ray://", "it is no address: HOST:PORT"),
    ],
)
def test_an_address_that_nobody_answers_at_is_named(
    given: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(socket, "create_connection", refuse)
    given = given.replace("PORT", str(free_port()))
    with pytest.raises(UserError) as failure:
        address.check_reachable(given, seconds=0.2)
    failure.match(f"has RAY_ADDRESS = {given.replace('[', '.').replace(']', '.')}, and ")
    failure.match(why)
    failure.match("unset it for a local cluster")


def test_an_address_that_answers_will_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        address.check_reachable(f"ray://127.0.0.1:{port}", seconds=1)
    address.check_reachable("local")


def test_a_stale_address_ends_a_run_with_words(tmp_path: Path) -> None:
    stale = f"127.0.0.1:{free_port()}"
    done = subprocess.run(
        [*MAIN, "--out", str(tmp_path / "r")],
        env=os.environ | {"RAY_ADDRESS": stale},
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert f"RAY_ADDRESS = {stale}, and nothing answers at" in line


def test_a_long_folder_for_temporary_files_is_named(tmp_path: Path) -> None:
    long = tmp_path / ("a" * 100)
    long.mkdir()
    done = subprocess.run(
        [*MAIN, "--out", str(tmp_path / "r")],
        env=os.environ | {"TMPDIR": str(long), "RAY_ADDRESS": ""},
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert f"TMPDIR = {long} is too long" in line
    assert "set RAY_TMPDIR to a shorter folder" in line
