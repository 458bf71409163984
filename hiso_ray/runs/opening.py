"""The notes that a run shows its user before the first round."""

from __future__ import annotations

import numpy as np

from hiso_ray.config import Experiment
from hiso_ray.execution.memory import activation_bytes, actor_bytes, frozen_bytes
from hiso_ray.federation.attendance import describe
from hiso_ray.federation.partition import skew
from hiso_ray.federation.traffic import Sizes
from hiso_ray.runs.plan import curvature_memory, probe_memory
from hiso_ray.runs.setting import Setting
from hiso_ray.tasks import evaluation
from hiso_ray.tasks.contract import Prepared, largest_layer
from hiso_ray.tasks.images.stacked import PAYS_UP_TO
from hiso_ray.tasks.sensitivity import described

MIB = 2**20
# Below these μ, rounding in the forward pass is a large part of the clients' scalars.
SMALLEST_MU = {"float32": 0.0, "bfloat16": 1e-2, "float16": 1e-3}
# For second differences, whose rounding error grows as 1/μ²; on digits H learns it below 1e-3.
SMALLEST_MU_TWICE = {"float32": 1e-3, "bfloat16": 1e-1, "float16": 3e-2}


def notes(setting: Setting) -> list[str]:
    """The notes, one line each.

    Raises:
        UserError: all evaluation examples are training examples too.
    """
    experiment, prepared = setting.experiment, setting.prepared
    sizes = Sizes(experiment, prepared.x0.size, prepared.frozen)
    return [
        *prepared.notes,
        *evaluation.seen(experiment.task, prepared),
        _model(experiment, prepared),
        *_mask(sizes),
        _partition(setting.counts),
        *(f"virtual clock: {line}" for line in describe(sizes, setting.population.devices)),
        _memory(experiment, prepared),
        *_probes(experiment, prepared),
        *_precision(experiment),
        *_signs(experiment),
    ]


def _precision(experiment: Experiment) -> list[str]:
    """A warning if rounding is a large part of the scalars that clients send."""
    dtype, method = experiment.task.dtype, experiment.method
    smallest = (SMALLEST_MU_TWICE if method.row.second_differences else SMALLEST_MU)[dtype]
    if method.row.first_order or method.mu >= smallest:
        return []
    remedy = f"use method.mu {smallest:g}"
    if dtype != "float32":
        remedy += " or task.dtype float32 (docs/models.md has the errors measured)"
    return [
        f"warning: {dtype} forward passes hide {method.name}'s differences at μ = {method.mu:g}; "
        f"{remedy}"
    ]


def _signs(experiment: Experiment) -> list[str]:
    """A warning if directions of ±1 make H learn the same number for every weight."""
    method = experiment.method
    alone = method.directions == "shared" and method.num_perturbations == 1
    blind = method.row.second_differences or alone
    # The scalar arm has one number for all weights anyway.
    learned = method.curvature_row.learns and method.curvature != "scalar"
    if method.distribution != "rademacher" or experiment.sends_weights or not (learned and blind):
        return []
    remedy = "" if method.row.second_differences else ", or method.num_perturbations 2 or more"
    return [
        "warning: u² = 1 for directions of ±1, so H learns the same number for every weight; use "
        f"method.distribution gaussian{remedy}"
    ]


def _partition(counts: np.ndarray) -> str:
    """How skewed the partition is.

    Args:
        counts: (num_clients, groups) examples.
    """
    found = skew(counts)
    return (
        f"partition: {found['min']}–{found['max']} examples per client (median "
        f"{found['median']:g}), {found['labels']:.1f} of {counts.shape[1]} groups on average, "
        f"mix of groups {found['distance']:.2f} away from the whole (total variation)"
    )


def _model(experiment: Experiment, prepared: Prepared) -> str:
    """What is trained, and the memory of H."""
    d, whole = prepared.x0.size, prepared.x0.size + prepared.frozen
    method = experiment.method
    line = f"{method.name} on {experiment.task.model}: d = {d:,} trainable weights"
    if whole > d:
        line += f" of {whole:,}"
    if method.curvature != "none":
        line += f", curvature {method.curvature} ({curvature_memory(experiment, d)})"
    return line


def _mask(sizes: Sizes) -> list[str]:
    """What a mask that clients get was measured on, and its bytes."""
    if not sizes.mask:
        return []
    return [
        f"mask by squared gradients on {described(sizes.experiment)}, {sizes.mask:,} bytes, once "
        "to each client"
    ]


def _memory(experiment: Experiment, prepared: Prepared) -> str:
    """The memory of an actor, and the memory that the actors of a node share."""
    need, size = actor_bytes(experiment, *prepared.size), prepared.size
    active = activation_bytes(experiment, size.activation, size.layers)
    shared = frozen_bytes(experiment, prepared.frozen)
    return (
        f"memory: about {need / MIB:,.0f} MiB an actor, {active / MIB:,.0f} of them activations"
        + (f"; {shared / MIB:,.0f} MiB of frozen weights once a node" if shared > 0 else "")
    )


def _probes(experiment: Experiment, prepared: Prepared) -> list[str]:
    """The memory that probes save if they hold one layer at a time."""
    if experiment.resources.probe_weights == "whole":
        return []
    if "model" not in prepared.spec and prepared.x0.size <= PAYS_UP_TO:
        return [
            "probes hold all weight vectors of a step: of a network so small "
            "resources.probe_weights layer spares nothing"
        ]
    layer = largest_layer(prepared.spec["layout"])
    return [f"probes hold {probe_memory(experiment, prepared.x0.size, layer)}"]
