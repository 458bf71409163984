"""Checks that all nodes are there, and alike in what must not differ."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from hiso_ray.config import Experiment
from hiso_ray.doctor.facts import CODE
from hiso_ray.doctor.finding import Examined, Finding, grouped
from hiso_ray.doctor.tiny_run import Bits
from hiso_ray.execution.placement import Node

CLOCK_SECONDS = 1.0  # by which clocks may differ


def cluster(nodes: Sequence[Node], gone: Sequence[str], expected: int | None = None) -> Finding:
    """What was examined.

    Args:
        gone: addresses of nodes that have left.
        expected: how many nodes there should be; None if nobody said.
    """
    cpus, gpus = sum(n.cpus for n in nodes), sum(n.gpus for n in nodes)
    there = f"{len(nodes)} node{'s' if len(nodes) > 1 else ''}, {cpus:g} CPUs, {gpus:g} GPUs"
    address = os.environ.get("RAY_ADDRESS")
    found = f"{address}: {there}" if address else f"no RAY_ADDRESS, so this machine alone: {there}"
    logs = "the end of session_latest/logs/raylet.out in Ray's temporary folder (/tmp/ray) there"
    if expected is not None and len(nodes) < expected:
        return Finding(
            "cluster", "fail", f"{found}; {expected} nodes were to be there", f"see {logs}"
        )
    if gone:
        left = f"{', '.join(gone)} left it"
        return Finding("cluster", "warn", f"{found}; {left}", f"unless that was meant, see {logs}")
    return Finding("cluster", "ok", found)


def answers(silent: Mapping[str, str]) -> list[Finding]:
    """Whether all nodes could be examined.

    Args:
        silent: why not, by address.
    """
    if not silent:
        return []
    return [
        Finding(
            "answers",
            "fail",
            grouped(silent),
            "install hiso_ray there, for the Python that Ray was started with; if there was no "
            "answer in time, see whether the node is overloaded",
        )
    ]


def versions(found: Mapping[str, Mapping[str, str]]) -> Finding:
    """Whether all have the same software.

    Args:
        found: ``Facts.versions`` by address.
    """
    names = list(next(iter(found.values())))
    of = {name: {address: some[name] for address, some in found.items()} for name in names}
    different = [name for name in names if len(set(of[name].values())) > 1]
    if different:
        return Finding(
            "versions",
            "fail",
            "\n".join(f"{name}: {grouped(of[name])}" for name in different),
            "install the same on all nodes: `pip install -c constraints.txt -e .` of one checkout, "
            "or one image; then start Ray there again",
        )
    everywhere = next(iter(found.values()))
    shown = (f"{name} {everywhere[name]}" for name in names if name != CODE)
    return Finding("versions", "ok", ", ".join(shown))


def clocks(nodes: Sequence[Examined]) -> Finding:
    """Whether times in logs and in ``faults.jsonl`` can be compared."""
    wrong = {n.address: f"{n.ahead:+.1f} s" for n in nodes if abs(n.ahead) > CLOCK_SECONDS}
    if wrong:
        return Finding(
            "clocks",
            "warn",
            grouped(wrong),
            "start a time service there (chrony, systemd-timesyncd); results do not depend on it, "
            "times in faults.jsonl and in Ray's logs do",
        )
    return Finding("clocks", "ok", f"within {max(abs(n.ahead) for n in nodes):.3f} s")


def same_bits(experiment: Experiment, nodes: Sequence[Examined]) -> Finding:
    """Whether a tiny run ends with one digest on all nodes that can have client actors."""
    asked = experiment.resources.gpus_per_client != 0
    gpus = asked and any(n.room.gpus > 0 for n in nodes)
    able = [n for n in nodes if n.room.cpus > 0 and (n.room.gpus > 0 or not gpus)]
    bits = {n.address: n.facts.bits for n in able}
    broken = {address: why for address, why in bits.items() if isinstance(why, str)}
    if broken:
        return Finding("same bits", "fail", f"the tiny run failed: {grouped(broken)}")
    found = {a: f"{b.device}: {b.digest[:12]}" for a, b in bits.items() if isinstance(b, Bits)}
    if not found:
        return Finding("same bits", "fail", "no node can have client actors", "see under actors")
    devices = {b.device for b in bits.values() if isinstance(b, Bits)}
    if len(devices) > 1:
        return Finding(
            "same bits",
            "fail",
            grouped(found),
            "other kinds of processor add up in another order, so last bits differ and a run "
            "refuses to mix them: use nodes of one kind",
        )
    if len(set(found.values())) > 1:
        return Finding(
            "same bits",
            "fail",
            grouped(found),
            "the nodes are of one kind, so their libraries differ: compare `pip freeze` there, "
            "and processors by `lscpu`",
        )
    return Finding("same bits", "ok", grouped(found))
