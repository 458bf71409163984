"""Checks that there is room for what a run asks for: GPUs, actors, the object store."""

from __future__ import annotations

from collections.abc import Sequence

from hiso_ray.config import Experiment
from hiso_ray.doctor.finding import Examined, Finding, grouped
from hiso_ray.errors import UserError
from hiso_ray.execution.memory import CONTEXT, gpus_held, probe_bytes
from hiso_ray.execution.placement import place
from hiso_ray.tasks.contract import Count

GIB, MIB = 2**30, 2**20
FREE = 0.9  # of a GPU's memory, below which something else runs there


def gpus(experiment: Experiment, nodes: Sequence[Examined]) -> list[Finding]:
    """Whether torch sees the GPUs that Ray counts, and what a share of each holds."""
    asked = experiment.resources.gpus_per_client != 0
    unseen = {
        n.address: f"Ray counts {n.room.gpus:g}, torch {n.facts.versions['torch']} sees "
        f"{len(n.facts.gpus)}"
        for n in nodes
        if n.room.gpus > len(n.facts.gpus)
    }
    if unseen:
        return [
            Finding(
                "GPUs",
                "fail" if asked else "warn",
                grouped(unseen),
                "install NVIDIA's driver and a torch that is built for CUDA there, or start Ray "
                "with the --num-gpus that torch sees",
            )
        ]
    uncounted = {
        n.address: f"torch sees {len(n.facts.gpus)}, Ray counts {n.room.gpus:g}"
        for n in nodes
        if n.room.gpus < len(n.facts.gpus)
    }
    if asked and uncounted:
        return [Finding("GPUs", "warn", grouped(uncounted), "start Ray there with --num-gpus")]
    return _shares(experiment, nodes)


def _shares(experiment: Experiment, nodes: Sequence[Examined]) -> list[Finding]:
    share = min(1.0, gpus_held(experiment.resources))
    kinds, taken = {}, {}
    for node in nodes:
        for number, gpu in enumerate(node.facts.gpus):
            line = f"{gpu.name}, {gpu.total / GIB:.1f} GiB"
            if share:
                own = share * gpu.total - (CONTEXT if share < 1 else 0)
                line += f": {max(0.0, own) / GIB:.1f} GiB for torch in a share of {share:g}"
            kinds[f"{node.address} #{number}"] = line
            if gpu.free < FREE * gpu.total:
                used = (gpu.total - gpu.free) / GIB
                taken[f"{node.address} #{number}"] = f"{used:.1f} GiB in use already"
    found = [Finding("GPUs", "ok", grouped(kinds) if kinds else "none")]
    if taken:
        found.append(
            Finding(
                "GPU memory",
                "warn",
                grouped(taken),
                "end what runs there (nvidia-smi lists it), or lower the shares: they are shares "
                "of the whole memory",
            )
        )
    return found


def actors(experiment: Experiment, size: Count, nodes: Sequence[Examined]) -> Finding:
    """Whether the client actors fit."""
    try:
        placement = place(experiment, [n.room for n in nodes], *size)
    except UserError as error:
        found, _, remedy = str(error).partition(": ")  # the colon is before what to do
        return Finding("actors", "fail", found, remedy)
    return Finding("actors", "ok", placement.line)


def object_store(experiment: Experiment, size: Count, nodes: Sequence[Examined]) -> Finding:
    """Whether each node's object store holds the weights, in memory."""
    copies = 3 if experiment.sends_weights else 1  # x_0, x_r, and the one that replaces it
    need = 4 * size.trainable * copies + probe_bytes(experiment, size.frozen)
    small = {n.address: f"{n.store / GIB:.2f} GiB" for n in nodes if n.store < need}
    if small:
        return Finding(
            "object store",
            "warn",
            f"{grouped(small)}; the weights alone need {need / MIB:,.2f} MiB, so Ray keeps some on "
            "a disk",
            f"start Ray there with --object-store-memory {2 * need} (and containers with "
            "`--shm-size` above that; on Kubernetes, an emptyDir with medium Memory at /dev/shm)",
        )
    on_disk = {
        n.address: f"{n.store / GIB:.1f} GiB in a /dev/shm of {n.facts.shared_memory / GIB:.2f} GiB"
        for n in nodes
        if n.facts.shared_memory is not None and n.facts.shared_memory < n.store
    }
    if on_disk:
        return Finding(
            "object store",
            "warn",
            f"{grouped(on_disk)}: Ray keeps the rest in files on a disk",
            "start containers with a larger `--shm-size` (on Kubernetes, an emptyDir with medium "
            "Memory at /dev/shm), or Ray with a smaller --object-store-memory",
        )
    least = min(n.store for n in nodes)
    return Finding(
        "object store", "ok", f"{least / GIB:.1f} GiB; the weights need {need / MIB:,.2f} MiB"
    )
