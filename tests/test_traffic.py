"""Bytes, turns and time as a fold over hand-made records."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hiso_ray import Experiment
from hiso_ray.devices import Devices
from hiso_ray.ledger import Record
from hiso_ray.traffic import Traffic, paper_bytes_per_client, write_clients

REQUEST, RECORD, UP = 8 + 8, 8 + 8 + 4 * 5, 4 * 5  # τ = 1, P = 5


def record(round_: int, cohort: tuple[int, ...], **fields: Any) -> Record:
    scalars = ((0.5,) * 5,) if cohort else ()
    loss = 1.0 if cohort else None
    return Record(round_, cohort, (round_,), scalars, 1e-3, 1e-3, 0.9, 1e-8, loss, **fields)


def four_clients() -> Traffic:
    e = Experiment().changed(**{"federation.num_clients": 4, "federation.clients_per_round": 3})
    return Traffic(e)


def test_every_fate_by_hand() -> None:
    traffic = four_clients()
    everyone = np.arange(4)
    traffic.count(record(0, (0, 1), dropped=(2,), seconds=2.0))
    assert traffic.missed(everyone).tolist() == [1, 1, 1, 1]
    traffic.count(record(1, (0,), dropped=(1,), late=(3,), seconds=4.0))
    assert traffic.missed(everyone).tolist() == [1, 1, 2, 1]
    traffic.count(record(2, (2, 3), late=(0,), seconds=0.5))
    assert traffic.missed(everyone).tolist() == [1, 2, 1, 1]
    assert traffic.sampled.tolist() == [3, 2, 2, 2]
    assert traffic.answered.tolist() == [2, 1, 1, 1]
    assert traffic.dropped.tolist() == [0, 1, 1, 0]
    assert traffic.late.tolist() == [1, 0, 0, 1]
    assert traffic.uplink_bytes.tolist() == [2 * UP, UP, UP, UP]
    caught_up = np.array([0 + 1 + 1, 0 + 1, 0 + 2, 1 + 1])
    sampled = np.array([3, 2, 2, 2])
    assert traffic.downlink_bytes.tolist() == (sampled * REQUEST + caught_up * RECORD).tolist()
    assert traffic.up == 5 * UP
    assert traffic.down == 9 * REQUEST + 7 * RECORD
    assert traffic.forwards == 5 * 6
    assert traffic.simulated_seconds == 6.5


def test_a_round_that_nobody_answered_leaves_nothing_to_catch_up_with() -> None:
    traffic = four_clients()
    traffic.count(record(0, (0, 1)))
    traffic.count(record(1, (), dropped=(0,), late=(2,), seconds=4.0))
    assert traffic.missed(np.arange(4)).tolist() == [0, 1, 0, 1]
    down = [REQUEST + REQUEST + RECORD, REQUEST, REQUEST + RECORD, 0]
    assert traffic.downlink_bytes.tolist() == down
    assert traffic.uplink_bytes.tolist() == [UP, UP, 0, 0]
    assert traffic.applied == 1
    traffic.count(record(2, (0,)))
    assert traffic.downlink_bytes[0] == down[0] + REQUEST


def test_the_papers_byte_rule() -> None:
    # REFERENCE §2: 1 500 rounds, P = 5, τ = 1 → 58.59 KiB; 550 → 21.48
    assert paper_bytes_per_client(1500, 1, 5) / 1024 == pytest.approx(58.59, abs=0.01)
    assert paper_bytes_per_client(350, 1, 5) / 1024 == pytest.approx(13.67, abs=0.01)


@pytest.mark.parametrize("with_devices", [False, True])
def test_the_clients_table(tmp_path: Path, with_devices: bool) -> None:
    traffic = four_clients()
    traffic.count(record(0, (0, 1), dropped=(2,), late=(3,), seconds=2.0))
    devices = Devices(np.arange(1.0, 5), np.full(4, 0.1), np.full(4, 1 / 3))
    path = tmp_path / "clients.csv"
    for _ in range(2):  # a second writing replaces the first
        write_clients(path, traffic, np.array([5, 6, 7, 8]), devices if with_devices else None)
    with open(path, newline="") as file:
        header, *rows = csv.reader(file)
    device = ",speed,uplink_mbps,downlink_mbps" if with_devices else ""
    turns = "client,examples,sampled,answered,dropped,late"
    assert ",".join(header) == f"{turns},uplink_bytes,downlink_bytes{device}"
    assert [row[:8] for row in rows] == [
        ["0", "5", "1", "1", "0", "0", "20", "16"],
        ["1", "6", "1", "1", "0", "0", "20", "16"],
        ["2", "7", "1", "0", "1", "0", "0", "16"],
        ["3", "8", "1", "0", "0", "1", "0", "16"],
    ]
    if with_devices:
        assert [list(map(float, row[8:])) for row in rows][2] == [3.0, 0.1, 1 / 3]
    assert [p.name for p in tmp_path.iterdir()] == ["clients.csv"]
