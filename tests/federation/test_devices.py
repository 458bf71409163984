"""Devices drawn from the seed or read from a file."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hiso_ray import Experiment
from hiso_ray.federation import devices
from hiso_ray.federation.devices import Devices


def federation(clients: int, profile: Path | str = "drawn", seed: int = 0, **fields: Any) -> Any:
    dotted = {f"devices.{name}": value for name, value in fields.items()}
    dotted |= {"federation.num_clients": clients, "federation.clients_per_round": 1, "seed": seed}
    return Experiment().changed(**dotted, **{"devices.profile": str(profile)})


def load(*arguments: Any, **fields: Any) -> Devices:
    found = devices.of(federation(*arguments, **fields))
    assert found is not None
    return found


def test_no_profile_no_devices() -> None:
    assert devices.of(Experiment()) is None
    assert devices.digest(None) == "none"


def test_drawn_devices_have_the_stated_distribution() -> None:
    n = 4000
    found = load(n, speed_spread=0.7, uplink_mbps=8, downlink_mbps=40, bandwidth_spread=0.3)
    for values, median, spread in (
        (found.speed, 1, 0.7),
        (found.uplink_mbps, 8, 0.3),
        (found.downlink_mbps, 40, 0.3),
    ):
        logs = np.log(values / median)
        assert abs(logs.mean()) < 4 * spread / np.sqrt(n)
        assert abs(logs.std() - spread) < 4 * spread / np.sqrt(2 * n)
    assert np.allclose(found.downlink_mbps / found.uplink_mbps, 5, rtol=1e-5)
    assert abs(np.corrcoef(np.log(found.speed), np.log(found.uplink_mbps))[0, 1]) < 4 / np.sqrt(n)


def test_without_spread_all_are_the_median() -> None:
    found = load(3, speed_spread=0, bandwidth_spread=0, uplink_mbps=2, downlink_mbps=9)
    assert found.speed.tolist() == [1, 1, 1]
    assert found.uplink_mbps.tolist() == [2, 2, 2]
    assert found.downlink_mbps.tolist() == [9, 9, 9]


def test_drawn_devices_are_a_function_of_seed_and_client() -> None:
    few, many = load(10), load(1000)
    assert few.speed.tolist() == many.speed[:10].tolist()
    assert few.uplink_mbps.tolist() == many.uplink_mbps[:10].tolist()
    assert load(10, seed=1).speed.tolist() != few.speed.tolist()


def test_drawn_devices_stay_the_same() -> None:
    """A ledger's header holds their digest."""
    assert load(3).speed.tolist() == [0.578652, 1.11465, 0.634196]


def test_the_digest_is_of_the_values(tmp_path: Path) -> None:
    drawn = load(10)
    assert devices.digest(drawn) == devices.digest(load(10)) != devices.digest(load(10, seed=1))
    with open(tmp_path / "same.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["client", "examples", *devices.NAMES])
        for client in range(10):
            values = [getattr(drawn, name)[client] for name in devices.NAMES]
            table.writerow([client, 17, *values])
    assert devices.digest(load(10, tmp_path / "same.csv")) == devices.digest(drawn)


def test_a_file_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "phones.csv"
    path.write_text("downlink_mbps,client,model,speed,uplink_mbps\n8,1,b,2,.5\n\n4,0,a,0.5,1e-3\n")
    found = load(2, path)
    assert found.speed.tolist() == [0.5, 2]
    assert found.uplink_mbps.tolist() == [0.001, 0.5]
    assert found.downlink_mbps.tolist() == [4, 8]
    assert found.speed.dtype == np.float64


HEAD = "client,speed,uplink_mbps,downlink_mbps\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("client,speed\n0,1\n", "no column uplink_mbps, downlink_mbps: its first line must name"),
        ("", "no column client, speed, uplink_mbps, downlink_mbps"),
        (HEAD + "0,1,1,1\n", "no row for 1 of 2 clients, the first is client 1"),
        (HEAD + "0,1,1,1\n1,1,1,1\n0,1,1,1\n", "line 4: client 0 has a row already"),
        (HEAD + "0,1,1,1\n2,1,1,1\n", "line 3: client = 2, the federation's are 0 to 1"),
        (HEAD + "-1,1,1,1\n", "line 2: client = -1"),
        (HEAD + "a,1,1,1\n", "line 2: client = a"),
        (HEAD + "0,0,1,1\n", "line 2: speed = 0, give a number from 1e-06 to 1e"),
        (HEAD + "0,1,-3,1\n", "line 2: uplink_mbps = -3"),
        (HEAD + "0,1,1,inf\n", "line 2: downlink_mbps = inf"),
        (HEAD + "0,nan,1,1\n", "line 2: speed = nan"),
        (HEAD + "0,fast,1,1\n", "line 2: speed = fast"),
        (HEAD + "0,1,1\n", "line 2: downlink_mbps = None"),
    ],
)
def test_mistakes_in_a_file_name_the_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "phones.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"phones\.csv") as caught:
        devices.of(federation(2, path))
    assert words in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No such file or directory; give none, drawn or a CSV"):
        devices.of(federation(2, tmp_path / "missing.csv"))
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not a CSV file in UTF-8"):
        devices.of(federation(2, tmp_path / "bytes.csv"))


def test_a_profile_is_found_again_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "phones.csv").write_text(HEAD + "0,3,1,1\n")
    monkeypatch.chdir(tmp_path)
    resolved = devices.resolve(federation(1, "phones.csv"))
    monkeypatch.chdir("/")
    found = devices.of(resolved)
    assert found is not None
    assert found.speed.tolist() == [3]
    for profile in ("none", "drawn"):
        e = Experiment().changed(**{"devices.profile": profile})
        assert devices.resolve(e) == e
