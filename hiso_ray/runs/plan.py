"""What a run will cost, computed from its configuration alone: no weights, no data, no hub.

Bytes are counted as in ``traffic``, memory as in ``execution.memory``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hiso_ray import tasks
from hiso_ray.config import Experiment
from hiso_ray.config.fits import check_dimension, whole_only
from hiso_ray.execution.memory import (
    activation_bytes,
    actor_bytes,
    actor_gpu_bytes,
    frozen_bytes,
    probe_bytes,
)
from hiso_ray.federation import devices
from hiso_ray.federation.attendance import describe
from hiso_ray.federation.traffic import Sizes, forward_passes, paper_bytes_per_client
from hiso_ray.server.optimizers import chunks
from hiso_ray.tracking.tracked import check_installed

GPUS = (24, 40, 80)  # GiB, common sizes


@dataclass(frozen=True)
class Plan:
    """Counts are for a whole run unless stated otherwise.

    Attributes:
        trainable: d.
        frozen: weights that are not trained.
        curvature: memory of H in every actor, in words.
        probes: memory of perturbed weights in every actor, in words; empty where there are none.
        uplink_bytes: per sampled client and round.
        downlink_bytes: per sampled client and round, if the client missed one record.
        paper_bytes_per_client: counted by the published tables' rule.
        initial_model_bytes, mask_bytes: sent once to each client; 0 without a mask, or if clients
            can make it themselves.
        forward_passes: of training, if every sampled client answers; excludes evaluation.
        actor_bytes: memory of an actor, without activations.
        activation_bytes: upper bound, with all sequences of the largest batch at maximal length.
        shared_bytes: memory that the actors of a node share: frozen weights, on CPUs.
        server_bytes: memory of the driver, if it holds weights: x, moments, the sums of a cohort's
            chunks, their mean, and the copy that is sent.
        clock: duration of turns on the virtual clock, if there is one.
        actors_per_gpu: number of such actors that fit in GPU memory, by its size [GiB].
    """

    trainable: int
    frozen: int
    curvature: str
    probes: str
    uplink_bytes: int
    downlink_bytes: int
    paper_bytes_per_client: int
    initial_model_bytes: int
    mask_bytes: int
    forward_passes: int
    actor_bytes: int
    activation_bytes: int
    shared_bytes: int
    server_bytes: int
    clock: tuple[str, ...]
    actors_per_gpu: dict[int, int]


def plan(experiment: Experiment) -> Plan:
    """The plan of a resolved experiment.

    Raises:
        UserError: the model's structure is not available without a hub, or the chosen subset of
            it does not exist; the devices cannot be loaded, or none meets the deadline; a tracker
            is not installed.
    """
    check_installed(experiment)
    federation, method = experiment.federation, experiment.method
    trainable, frozen, layer, activation, layers = tasks.count(experiment)
    check_dimension(experiment, trainable)
    sizes = Sizes(experiment, trainable, frozen)
    record = sizes.record(federation.clients_per_round)
    need = actor_bytes(experiment, trainable, frozen, layer)
    gpu_need = actor_gpu_bytes(experiment, trainable, frozen, layer)
    return Plan(
        trainable=trainable,
        frozen=frozen,
        curvature=curvature_memory(experiment, trainable),
        probes=probe_memory(experiment, trainable, layer),
        uplink_bytes=sizes.up,
        downlink_bytes=sizes.request + int(sizes.missed(np.array(record))),
        paper_bytes_per_client=paper_bytes_per_client(experiment, federation.rounds, trainable),
        initial_model_bytes=4 * (trainable + frozen),
        mask_bytes=sizes.mask,
        forward_passes=federation.rounds
        * federation.clients_per_round
        * forward_passes(method, federation.local_steps),
        actor_bytes=need,
        activation_bytes=activation_bytes(experiment, activation, layers),
        shared_bytes=frozen_bytes(experiment, frozen),
        server_bytes=_server_bytes(experiment, trainable),
        clock=tuple(describe(sizes, devices.of(experiment))),
        actors_per_gpu={size: size * 2**30 // gpu_need for size in GPUS},
    )


def _server_bytes(experiment: Experiment, dimension: int) -> int:
    if not experiment.sends_weights:
        return 0
    held = {"sgd": 1, "adagrad": 2, "adam": 3, "yogi": 3}[experiment.method.row.server]
    sums = len(chunks(range(experiment.federation.clients_per_round)))
    return 4 * dimension * (held + sums + 2)


def curvature_memory(experiment: Experiment, dimension: int) -> str:
    """The memory of H in an actor, in words."""
    row = experiment.method.curvature_row
    return row.few or f"{4 * dimension * row.vectors:,} bytes"


def probe_memory(experiment: Experiment, dimension: int, layer: int) -> str:
    """The memory of perturbed weights in an actor, in words; empty if nothing is perturbed.

    Args:
        dimension: d.
        layer: trainable weights of the largest layer.
    """
    if experiment.method.row.first_order:
        return ""
    whole, largest = (_mebibytes(probe_bytes(experiment, n)) for n in (dimension, layer))
    if experiment.resources.probe_weights == "layer":
        return f"one layer at a time: {largest} instead of {whole} of perturbed weights"
    line = f"the whole model: {whole} of perturbed weights"
    if layer < dimension and not whole_only(experiment):
        line += f" ({largest} with resources.probe_weights layer)"
    return line


def _mebibytes(count: int) -> str:
    size = count / 2**20
    return f"{size:,.0f} MiB" if size >= 10 else f"{size:.2g} MiB"
