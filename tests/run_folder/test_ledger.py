from __future__ import annotations

import json
import re
import resource
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hiso_ray.record import Record
from hiso_ray.run_folder import ledger as ledger_module
from hiso_ray.run_folder.ledger import Ledger, LedgerError


def record(round_: int) -> Record:
    scalar = float(np.float32(0.1) * np.float32(round_ + 1))
    return Record(
        round_, (1, 4), (2**64 - 1 - round_,), ((scalar, -3.5),), 0.1, 1e-3, 0.95, 1e-8, 2.0
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger.create(path, {"config_sha256": "c"})
    for r in range(5):
        ledger.append(record(r))
    ledger.close()
    return path


def test_reads_back_exactly(path: Path) -> None:
    ledger = Ledger.read(path)
    assert ledger.records == [record(r) for r in range(5)]
    assert ledger.header["config_sha256"] == "c"
    assert all(isinstance(json.loads(line), dict) for line in path.read_text().splitlines())


def test_all_that_a_method_may_record_is_read_back_exactly(path: Path) -> None:
    ledger = Ledger.open(path)
    weights = Record(6, (0,), (7,), (), 0.1, 1e-3, 0.95, 1e-8, 2.0, update_sha256="ab")
    hizoo = replace(record(5), second=((0.25, -1.5),), momentum=0.5)
    nobody = Record(7, (), (8,), (), 0.1, 1e-3, 0.95, 1e-8, None, dropped=(3,))
    for one in (hizoo, weights, nobody):
        ledger.append(one)
    assert Ledger.read(path).records[5:] == [hizoo, weights, nobody]
    assert [one.moves for one in (hizoo, weights, nobody)] == [True, True, False]


def test_every_record_is_on_disk_when_append_returns(path: Path) -> None:
    ledger = Ledger.open(path)
    ledger.append(record(5))
    assert Ledger.read(path).records[-1] == record(5)  # before close


@pytest.mark.parametrize("kept", [1, 20, -1])
def test_a_torn_tail_is_dropped_and_appending_goes_on(
    path: Path, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "LOCK_SECONDS", 0.1)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][:kept])
    ledger = Ledger.open(path)
    with pytest.raises(LedgerError, match="another process is writing"):
        Ledger.open(path)
    assert ledger.dropped_bytes == len(lines[-1][:kept])
    assert len(ledger.records) == 4
    ledger.append(record(4))
    ledger.close()
    assert path.read_bytes() == b"".join(lines)


def test_a_tail_of_garbage_is_dropped(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\x00\xff\n")
    assert len(Ledger.open(path).records) == 5


def test_a_corrupt_middle_names_the_round(path: Path) -> None:
    text = path.read_text()
    path.write_text(re.sub(r'("round":2,.*?"lr":)0\.1', r"\g<1>0.2", text))
    with pytest.raises(LedgerError, match=r"round 2 .*corrupt"):
        Ledger.read(path)


def test_a_removed_or_swapped_record_is_found(path: Path) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2] + lines[3:]))
    with pytest.raises(LedgerError, match="round 1"):
        Ledger.read(path)
    path.write_text("".join([*lines[:2], lines[3], lines[2], *lines[4:]]))
    with pytest.raises(LedgerError, match="round 1"):
        Ledger.read(path)


def test_a_corrupt_header_or_no_file(path: Path) -> None:
    with pytest.raises(LedgerError, match="no ledger"):
        Ledger.read(path.with_name("other.jsonl"))
    path.write_text(path.read_text().replace('"config_sha256":"c"', '"config_sha256":"d"'))
    with pytest.raises(LedgerError, match="header"):
        Ledger.read(path)


def test_a_ledger_is_never_started_twice(path: Path) -> None:
    with pytest.raises(FileExistsError):
        Ledger.create(path, {})


def test_a_lock_that_is_let_go_is_waited_for(path: Path) -> None:
    first = Ledger.open(path)
    threading.Timer(0.3, first.close).start()
    second = Ledger.open(path)
    second.append(record(5))
    assert Ledger.read(path).round == 6


def test_what_is_forgotten_is_read_again(path: Path) -> None:
    ledger = Ledger.open(path)
    ledger.append(record(5))
    every = [record(r) for r in range(6)]
    ledger.forget(before=4)
    assert ledger._recent == every[5:]
    for since in (5, 4, 6, 1, 0):
        assert ledger.since(since) == every[since:]
        assert len(ledger._recent) <= 2  # nothing before round 4 stays
    assert list(ledger.scan(1, 3)) == every[1:3]
    ledger.append(record(6))
    ledger.forget(before=7)
    assert ledger._recent == []
    assert ledger.since(6) == [record(6)]
    assert ledger.check(7) != ledger.check(6)


def test_a_record_changed_under_an_open_ledger_is_noticed(path: Path) -> None:
    ledger = Ledger.read(path)
    path.write_text(path.read_text().replace('"round":3', '"round":8'))
    with pytest.raises(LedgerError, match="round 3 was changed"):
        ledger.since(0)


def test_a_full_disk_leaves_the_ledger_as_it_was(path: Path) -> None:
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ledger = Ledger.open(path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 40, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            ledger.append(record(5))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    ledger.append(record(5))
    assert Ledger.read(path).records == [record(r) for r in range(6)]
