"""Checks that the folders that a run writes can be written where it writes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hiso_ray.config import Experiment
from hiso_ray.doctor.finding import Examined, Finding, grouped


def run_folder(experiment: Experiment, folder: Path, nodes: Sequence[Examined]) -> Finding:
    """Whether the driver can write the run folder, and the actors their snapshots."""
    why = next((n.facts.access.refused for n in nodes if n.here), None)
    if why is not None:
        return Finding(
            "run folder",
            "fail",
            f"{folder} cannot be written: {why}",
            "make it writable, or choose another --out",
        )
    blind = {n.address: "not there" for n in nodes if not n.facts.access.sees}
    refused = {n.address: n.facts.access.refused for n in nodes if n.facts.access.refused}
    apart = {address: str(why) for address, why in (refused | blind).items()}
    if apart and experiment.resources.snapshot_every > 0:
        return Finding(
            "run folder",
            "warn",
            f"{folder}: {grouped(apart)}",
            "mount shared storage under one path on all nodes; without it the run works, but "
            "actors that restart replay all rounds",
        )
    where = "" if apart or len(nodes) == 1 else " on all nodes"
    return Finding("run folder", "ok", f"{folder} can be written{where}")


def cache(folder: Path, why: str | None) -> Finding:
    """Whether what a run has tokenized or converted is kept for the next.

    Args:
        why: why the folder cannot be written; None if it can.
    """
    if why is None:
        return Finding("cache", "ok", f"{folder} can be written")
    return Finding(
        "cache",
        "warn",
        f"{folder} cannot be written: {why}",
        "set HISO_RAY_CACHE to a folder that can; without one, each run tokenizes its texts again",
    )
