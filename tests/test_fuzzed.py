"""Options, ledgers, snapshots and configurations that nobody would write: refused in words, or
taken as what they are. Seeded; ``HISO_RAY_FUZZ=10000`` asks the slow tests for more."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import ValidationError

from hiso_ray import Experiment, config, run
from hiso_ray.cli import main
from hiso_ray.config.fields import known_fields
from hiso_ray.config.methods import METHODS
from hiso_ray.errors import UserError
from hiso_ray.run_folder import snapshots
from hiso_ray.run_folder.ledger import Ledger, LedgerError

FIELDS = known_fields()
SHORT, LONG = 250, int(os.environ.get("HISO_RAY_FUZZ", "2000"))
BOTH = [
    pytest.param(range(SHORT), id="short"),
    pytest.param(range(SHORT, SHORT + LONG), id="long", marks=pytest.mark.slow),
]
NUMBERS = [
    *("0", "1", "-1", "2", "3", "7", "64", "0.5", "1e-3", "1e-300", "1e300", "1e-9", "1e9", "-0.0"),
    *("nan", "inf", "-inf", "99999999999999999999999", "1_000", "0x10", "٣", "true", "None"),
]
TEXTS = [
    *("", "auto", "none", "all", "x", "a,b", ",", "[", "]", "{", "{}", "{a}", "%s", "*", "**", "~"),
    *("\n", "\t", "\x00", "é", "😀", "[red]", "[/red]", "../..", "/", ".", "-1", "--seed", "null"),
]
MODELS = ["auto", "mlp-8", "cnn", "diagonal-16", "opt-reviews", "facebook/opt-125m", "no/such", "x"]
TASKS = [*["digits"] * 4, *["quadratic"] * 4, *["sst2"] * 4, "squad", "mnist", "reviews", "prompts"]


def value(rng: Random, name: str) -> str:
    kind = FIELDS[name].annotation
    alternatives = [kind, *get_args(kind)]
    named = [a for k in alternatives if get_origin(k) is Literal for a in get_args(k)]
    if name == "task.model":
        return rng.choice(MODELS)
    if name == "task.name":
        return rng.choice(TASKS)
    if named and rng.random() < 0.8:
        return str(rng.choice(named))
    if str in alternatives or rng.random() < 0.1:
        return rng.choice(TEXTS)
    return rng.choice(NUMBERS)


@pytest.mark.parametrize("seeds", BOTH)
def test_options_and_pairs_of_them_are_planned_or_refused_in_words(
    seeds: range,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    endings = set()
    for seed in seeds:
        rng = Random(seed)
        names = [n for n in rng.sample(list(FIELDS), rng.choice([1, 2, 2, 3])) if n != "task.name"]
        given = {"task.name": rng.choice(TASKS)} | {name: value(rng, name) for name in names}
        if given["task.name"] in ("sst2", "squad", "prompts"):
            given.setdefault("task.model", "facebook/opt-125m")
        if rng.random() < 0.5:
            given.setdefault("method.name", rng.choice(list(METHODS)))
        arguments = [f"--{name}={text}" for name, text in given.items()]
        try:
            status = main(["run", "--dry-run", *arguments])
        except SystemExit as stopped:  # argparse
            status = int(stopped.code or 0)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {arguments}") from error
        said = capsys.readouterr()
        endings.add(status)
        assert status in (0, 2), (seed, arguments)
        assert "Traceback" not in said.err, (seed, arguments)
        assert (status == 0) == (said.err == ""), (seed, arguments, said.err)
    assert endings == {0, 2}
    assert list(tmp_path.iterdir()) == []  # a plan writes nothing


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fuzzed") / "r"
    changes: dict[str, Any] = {
        "task.name": "digits", "task.model": "mlp-8", "federation.rounds": 6,
        "federation.num_clients": 12, "federation.clients_per_round": 3, "method.lr": 0.02,
        "resources.executor": "serial", "resources.snapshot_every": 3, "method.momentum": 0.5,
    }  # fmt: skip
    run(Experiment().changed(**changes), path)
    return path


def damaged(rng: Random, content: bytes) -> bytes:
    """Bytes changed, lost, doubled, or put elsewhere; here and there a digit or a whole line."""
    data = bytearray(content)
    at = rng.randrange(len(data))
    kind = rng.randrange(7)
    if kind == 0:
        data[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del data[at : at + rng.choice([1, 2, 16, 300])]
    elif kind == 2:
        data[at:at] = rng.choice([b"0", b" ", b"\n", b"\x00", b"\xff", b'"', b"1e9", b"{}"])
    elif kind == 3:
        digits = [m.start() for m in re.finditer(rb"\d", content)] or [at]
        data[rng.choice(digits)] = ord(rng.choice("0123456789"))
    elif kind == 4:
        del data[at:]
    else:
        lines = content.split(b"\n")
        i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
        if kind == 5:
            lines[i], lines[j] = lines[j], lines[i]
        else:
            lines.insert(j, lines[i])
        data = bytearray(b"\n".join(lines))
    return bytes(data)


@pytest.mark.parametrize("seeds", BOTH)
def test_no_altered_ledger_is_read(folder: Path, tmp_path: Path, seeds: range) -> None:
    content = (folder / "ledger.jsonl").read_bytes()
    good = Ledger.read(folder / "ledger.jsonl")
    lines = content.splitlines(keepends=True)
    ends = {len(b"".join(lines[:n])) for n in range(len(lines) + 1)}
    refused = 0
    for seed in seeds:
        changed = damaged(Random(seed), content)
        path = tmp_path / "ledger.jsonl"
        path.write_bytes(changed)
        try:
            found = Ledger.read(path)
        except LedgerError:
            refused += 1
            continue
        # What is read is a beginning of what was written; a torn end may follow it.
        kept = len(changed) - found.dropped_bytes
        assert content.startswith(changed[:kept]), seed
        assert kept in ends, seed
        assert found.header == good.header
        assert found.records == good.records[: found.round], seed
    assert refused > len(seeds) // 2


@pytest.mark.parametrize("seeds", BOTH)
def test_no_altered_snapshot_is_used(folder: Path, tmp_path: Path, seeds: range) -> None:
    ledger = Ledger.read(folder / "ledger.jsonl")
    good, _ = snapshots.newest(folder / "snapshots", ledger)
    assert good is not None
    content = good.path.read_bytes()
    tensors, norm = snapshots.read(good)
    refused = 0
    for seed in seeds:
        rng = Random(seed)
        head = int.from_bytes(content[:8], "little") + 8  # half of the damage is done up there
        changed = (
            damaged(rng, content[:head]) + content[head:]
            if rng.random() < 0.5
            else damaged(rng, content)
        )
        (tmp_path / good.path.name).write_bytes(changed)
        found, _ = snapshots.newest(tmp_path, ledger)
        for one in filter(None, (found, replace(good, path=tmp_path / good.path.name))):
            try:
                read, size = snapshots.read(one)
            except OSError:
                refused += 1
                continue
            assert one.round == good.round, seed
            assert size == norm, seed
            assert {n: (t.dtype, t.shape, t.tobytes()) for n, t in read.items()} == {
                n: (t.dtype, t.shape, t.tobytes()) for n, t in tensors.items()
            }, seed
    assert refused > len(seeds) // 2


@pytest.mark.parametrize("seeds", BOTH)
def test_no_altered_configuration_is_taken_for_the_runs(
    folder: Path, tmp_path: Path, seeds: range
) -> None:
    content = (folder / "config.yaml").read_bytes()
    good = Experiment.model_validate(config.read_yaml(folder / "config.yaml"))
    header = Ledger.read(folder / "ledger.jsonl").header

    def free(e: Experiment) -> Any:
        return e.model_dump(exclude={"resources", "eval"})

    other = 0
    for seed in seeds:
        path = tmp_path / "config.yaml"
        path.write_bytes(damaged(Random(seed), content))
        try:
            found = Experiment.model_validate(config.read_yaml(path))
        except (UserError, ValidationError):
            continue
        if free(found) != free(good):
            other += 1
            same = found.digest() == header["config_sha256"]
            # What is no part of the digest: how long, where from, and what is only looked at.
            # The data that are scored have a digest of their own.
            loose = {f"task.{name}": value for name, value in found.scoring().items()} | {
                "task.model": found.task.model,
                "task.data": found.task.data,
                "federation.rounds": found.federation.rounds,
                "diagnostics.every": found.diagnostics.every,
                "devices.profile": found.devices.profile,
            }
            assert not same or free(good.changed(**loose)) == free(found), seed
    assert other > 0
