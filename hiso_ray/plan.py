"""What a run will take, worked out from its configuration alone: no weights, no data, no hub.

The bytes are those of ``traffic``, the memory that of ``execution.placement``.
"""

from __future__ import annotations

from dataclasses import dataclass

from hiso_ray import devices, tasks
from hiso_ray.attendance import describe
from hiso_ray.config import Experiment
from hiso_ray.execution.placement import actor_bytes
from hiso_ray.traffic import (
    forward_passes,
    paper_bytes_per_client,
    record_bytes,
    request_bytes,
    uplink_bytes,
)

GPUS = (24, 40, 80)  # GiB, of common kinds


@dataclass(frozen=True)
class Plan:
    """Counts of a whole run unless a name says otherwise.

    Attributes:
        trainable: d.
        frozen: weights that are not trained.
        curvature_bytes: of H, in every actor.
        uplink_bytes: of a sampled client and round.
        downlink_bytes: of a sampled client and round, when it missed one record.
        paper_bytes_per_client: by the published tables' rule.
        initial_model_bytes: once to each client.
        forward_passes: of training, if every sampled client answers; evaluation comes on top.
        actor_bytes: memory of an actor, activations not included.
        clock: how long turns take on the virtual clock, if there is one.
        actors_per_gpu: how many such actors the memory of a GPU holds, by its size [GiB].
    """

    trainable: int
    frozen: int
    curvature_bytes: int
    uplink_bytes: int
    downlink_bytes: int
    paper_bytes_per_client: int
    initial_model_bytes: int
    forward_passes: int
    actor_bytes: int
    clock: tuple[str, ...]
    actors_per_gpu: dict[int, int]


def plan(experiment: Experiment) -> Plan:
    """The plan of a resolved experiment.

    Raises:
        ValueError: a model whose structure cannot be had without a hub, or a subset of it that
            does not exist; devices that cannot be had, or none of which meets the deadline.
    """
    federation, method = experiment.federation, experiment.method
    trainable, frozen = tasks.count(experiment)
    tau, perturbations = federation.local_steps, method.num_perturbations
    need = actor_bytes(experiment, trainable, frozen)
    on_gpu = experiment.changed(**{"resources.gpus_per_client": 1})
    gpu_need = actor_bytes(on_gpu, trainable, frozen)
    return Plan(
        trainable=trainable,
        frozen=frozen,
        curvature_bytes=curvature_bytes(experiment, trainable),
        uplink_bytes=uplink_bytes(tau, perturbations),
        downlink_bytes=request_bytes(tau) + record_bytes(tau, perturbations),
        paper_bytes_per_client=paper_bytes_per_client(federation.rounds, tau, perturbations),
        initial_model_bytes=4 * (trainable + frozen),
        forward_passes=federation.rounds
        * federation.clients_per_round
        * forward_passes(method, tau),
        actor_bytes=need,
        clock=tuple(describe(experiment, devices.load(experiment))),
        actors_per_gpu={size: size * 2**30 // gpu_need for size in GPUS},
    )


def curvature_bytes(experiment: Experiment, dimension: int) -> int:
    """Of H, in float32."""
    return {"none": 0, "diagonal": 4 * dimension, "scalar": 4}[experiment.curvature]
