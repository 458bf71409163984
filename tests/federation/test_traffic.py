"""Bytes, turns and time as a fold over hand-made records."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hiso_ray import Experiment
from hiso_ray.federation.devices import Devices
from hiso_ray.federation.traffic import (
    Sizes,
    Traffic,
    forward_passes,
    paper_bytes_per_client,
    write_clients,
)
from hiso_ray.record import Record

REQUEST, RECORD, UP = 8 + 8, 8 + 8 + 4 * 5, 4 * 5  # τ = 1, P = 5


def record(round_: int, cohort: tuple[int, ...], **fields: Any) -> Record:
    scalars = ((0.5,) * 5,) if cohort else ()
    loss = 1.0 if cohort else None
    return Record(round_, cohort, (round_,), scalars, 1e-3, 1e-3, 0.9, 1e-8, loss, **fields)


def four_clients(**dotted: Any) -> Traffic:
    small = {"federation.num_clients": 4, "federation.clients_per_round": 3}
    return Traffic(Experiment().changed(**(small | dotted)), dimension=1000)


def test_every_fate_by_hand() -> None:
    traffic = four_clients()
    everyone = np.arange(4)

    def missed() -> list[int]:
        records, taken = traffic.missed(everyone)
        assert taken.tolist() == (records * RECORD).tolist()
        return records.tolist()

    traffic.add(record(0, (0, 1), dropped=(2,), seconds=2.0))
    assert missed() == [1, 1, 1, 1]
    traffic.add(record(1, (0,), dropped=(1,), late=(3,), seconds=4.0))
    assert missed() == [1, 1, 2, 1]
    traffic.add(record(2, (2, 3), late=(0,), seconds=0.5))
    assert missed() == [1, 2, 1, 1]
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
    traffic.add(record(0, (0, 1)))
    traffic.add(record(1, (), dropped=(0,), late=(2,), seconds=4.0))
    assert traffic.missed(np.arange(4))[0].tolist() == [0, 1, 0, 1]
    down = [REQUEST + REQUEST + RECORD, REQUEST, REQUEST + RECORD, 0]
    assert traffic.downlink_bytes.tolist() == down
    assert traffic.uplink_bytes.tolist() == [UP, UP, 0, 0]
    assert traffic.applied == 1
    traffic.add(record(2, (0,)))
    assert traffic.downlink_bytes[0] == down[0] + REQUEST


def test_the_papers_byte_rule() -> None:
    # REFERENCE §2: 1 500 rounds, P = 5, τ = 1 → 58.59 KiB; 350 → 13.67
    e = Experiment()
    assert paper_bytes_per_client(e, 1500, 1000) / 1024 == pytest.approx(58.59, abs=0.01)
    assert paper_bytes_per_client(e, 350, 1000) / 1024 == pytest.approx(13.67, abs=0.01)


D, M = 1000, 3  # weights, clients a round
PER_CLIENT = {"method.directions": "per_client"}
METHOD_BYTES = [
    # up; request; a record that M answered; of 7 rounds by the paper's rule; forward passes
    ({}, 20, 16, 36, 7 * 40, 6),
    ({"federation.local_steps": 2}, 40, 24, 64, 7 * 80, 12),
    ({"method.name": "decomfl", "method.probe": "central"}, 20, 16, 36, 7 * 40, 10),
    ({"method.probe": "exact"}, 20, 16, 36, 7 * 40, 10),
    ({"uplink.precision": "float16"}, 10, 16, 36, 7 * 30, 6),
    ({"uplink.precision": "int8"}, 9, 16, 36, 7 * 29, 6),
    ({"uplink.precision": "sign"}, 1, 16, 36, 7 * 21, 6),
    (PER_CLIENT, 20, 16, 16 + M * (4 + 20), 7 * (20 + M * 20), 6),
    ({"method.name": "hizoo"}, 8, 16, 24, 7 * 16, 3),
    ({"method.name": "feedsign"}, 1, 16, 17, 2, 2),  # 14 bits
    ({"method.name": "fedkseed"}, 4, 16, 16 + M * 8, 7 * 4 * (2 + 4096), 2),
    ({"method.name": "fedzo"}, 4 * D, 16 + 4 * D, 0, 7 * 8 * D, 6),
    ({"method.name": "fedavg"}, 4 * D, 8 + 4 * D, 0, 7 * 8 * D, 3),
    ({"method.name": "fedprox", "federation.local_steps": 2}, 4 * D, 8 + 4 * D, 0, 7 * 8 * D, 6),
]


@pytest.mark.parametrize(
    ("dotted", "up", "request_", "a_record", "paper", "forwards"),
    METHOD_BYTES,
    ids=["+".join(map(str, case[0].values())) or "hiso" for case in METHOD_BYTES],
)
def test_what_each_method_sends(
    dotted: dict[str, Any], up: int, request_: int, a_record: int, paper: int, forwards: int
) -> None:
    traffic = four_clients(**dotted)
    e, sizes = traffic.experiment, traffic.sizes
    assert sizes == Sizes(e, D)
    assert (sizes.up, sizes.request, sizes.record(M)) == (up, request_, a_record)
    assert paper_bytes_per_client(e, 7, D) == paper
    assert forward_passes(e.method, e.federation.local_steps) == forwards
    update = "00" if e.sends_weights else None
    traffic.add(record(0, (0, 1, 2), update_sha256=update))
    traffic.add(record(1, (0,), dropped=(3,), update_sha256=update))
    pool = 4 * e.method.seed_pool
    assert traffic.uplink_bytes.tolist() == [2 * up, up, up, 0]
    again = request_ + (min(a_record, pool) if pool else a_record)
    assert traffic.downlink_bytes.tolist() == [request_ + again, request_, request_, again]


def test_records_of_directions_per_client_grow_with_who_answered() -> None:
    traffic = four_clients(**PER_CLIENT)
    traffic.add(record(0, (0,), dropped=(1, 2)))
    traffic.add(record(1, (0, 1, 2)))
    small, large = 16 + 24, 16 + 3 * 24
    assert traffic.missed(np.arange(4))[0].tolist() == [1, 1, 1, 2]
    assert traffic.missed(np.arange(4))[1].tolist() == [large, large, large, small + large]


def test_a_pool_of_seeds_bounds_what_is_missed() -> None:
    traffic = four_clients(**{"method.name": "fedkseed", "method.seed_pool": 8})
    assert traffic.missed(np.arange(4))[1].tolist() == [0, 0, 0, 0]
    for round_ in range(5):
        traffic.add(record(round_, (0, 1)))
    assert traffic.missed(np.arange(4))[0].tolist() == [1, 1, 5, 5]
    assert traffic.missed(np.arange(4))[1].tolist() == [32, 32, 32, 32]


def test_weights_leave_nothing_to_catch_up_with() -> None:
    traffic = four_clients(**{"method.name": "fedavg"})
    traffic.add(record(0, (0, 1), update_sha256="00"))
    assert [values.tolist() for values in traffic.missed(np.arange(4))] == [[0] * 4] * 2


@pytest.mark.parametrize("with_devices", [False, True])
def test_the_clients_table(tmp_path: Path, with_devices: bool) -> None:
    traffic = four_clients()
    traffic.add(record(0, (0, 1), dropped=(2,), late=(3,), seconds=2.0))
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
