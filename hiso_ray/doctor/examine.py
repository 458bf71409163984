"""Examines the cluster that a run would use, from joining it to the list of findings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from hiso_ray import tasks
from hiso_ray.config import Experiment
from hiso_ray.doctor import alike, capacity, facts, folders
from hiso_ray.doctor.facts import Facts
from hiso_ray.doctor.finding import Examined, Finding
from hiso_ray.errors import UserError
from hiso_ray.execution.cluster.address import SECONDS
from hiso_ray.execution.cluster.nodes import ask_every_node, left, wait_for
from hiso_ray.execution.cluster.session import joined_cluster
from hiso_ray.tasks.contract import Count
from hiso_ray.tasks.pretrained.cache import cache

THIS = "this process"
JOIN_SECONDS = 300.0  # for nodes to start and join


def examine(experiment: Experiment, out: Path, expected: int | None = None) -> list[Finding]:
    """Findings about every node of the cluster that this process is in or ``RAY_ADDRESS`` names;
    without one, about this machine with a Ray of its own, as ``run`` would start it.

    Args:
        experiment: what is to be run there; resolved.
        out: its run folder, or the folder of run folders; need not exist.
        expected: number of nodes to wait for, ``JOIN_SECONDS`` at most; None takes those there are.

    Raises:
        UserError: the model's structure is not available.
    """
    size, folder = tasks.count(experiment), _existing(out.resolve())
    with ExitStack() as stack:
        try:
            seconds = SECONDS if expected is None else JOIN_SECONDS
            stack.enter_context(joined_cluster(seconds))
        except UserError as error:
            there = "if it runs, call this on one of its nodes, or by `ray job submit`"
            return [Finding("cluster", "fail", str(error), there)]
        if expected is not None:
            wait_for(expected, JOIN_SECONDS)
        mark = stack.enter_context(_marked(folder))
        replies = ask_every_node(facts.gather, mark, experiment.resources)
        gone = left()
    silent = {r.address: _last_line(r.answer) for r in replies if isinstance(r.answer, Exception)}
    examined = [
        Examined(r.address, r.here, r.room, r.store, r.ahead, r.answer)
        for r in replies
        if isinstance(r.answer, Facts)
    ]
    software = {node.address: node.facts.versions for node in examined}
    kept = cache()
    return [
        alike.cluster([reply.room for reply in replies], gone, expected),
        *alike.answers(silent),
        alike.versions({THIS: facts.versions()} | software),
        *(judge(experiment, size, folder, examined) if examined else []),
        folders.cache(kept, facts.refused(_existing(kept))),
    ]


def judge(
    experiment: Experiment, size: Count, folder: Path, nodes: Sequence[Examined]
) -> list[Finding]:
    """Findings about some nodes, at least one.

    Args:
        experiment: resolved.
        size: of its model.
        folder: the one that is to hold the run folder.
    """
    return [
        *capacity.gpus(experiment, nodes),
        capacity.actors(experiment, size, nodes),
        capacity.object_store(experiment, size, nodes),
        folders.run_folder(experiment, folder, nodes),
        alike.clocks(nodes),
        alike.same_bits(experiment, nodes),
    ]


def _existing(path: Path) -> Path:
    """The path, or the first folder above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


@contextmanager
def _marked(folder: Path) -> Iterator[Path]:
    """A file in the folder by which other nodes know it, as long as the context lasts; none where
    it cannot be written, which this node reports."""
    mark = folder / f".hiso-doctor-{uuid4().hex}"
    with suppress(OSError):
        mark.touch()
    try:
        yield mark
    finally:
        with suppress(OSError):
            mark.unlink()


def _last_line(error: Exception) -> str:
    """Ray puts tracebacks before what went wrong."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1]
