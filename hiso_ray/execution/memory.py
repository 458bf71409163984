"""Estimates an actor's memory from the run's configuration, before anything is built."""

from __future__ import annotations

from hiso_ray.config import Experiment, ResourcesConfig
from hiso_ray.config.buffers import CHUNK, LOGITS, STREAMS
from hiso_ray.server.work_units import clients_together

LIBRARIES = 400 * 2**20  # torch and transformers, imported [bytes]
# CUDA's context, kernels and handles in each process, outside torch's allocator [bytes]
CONTEXT = 600 * 2**20


def actor_bytes(
    experiment: Experiment,
    dimension: int,
    frozen: int = 0,
    layer: int | None = None,
    activation: int = 0,
    layers: int = 1,
) -> int:
    """Lower bound of an actor's memory [bytes]: x, H, the average, local x, the perturbed weights
    of the model or of a layer, the frozen weights, cached directions, activations, cached states of
    frozen layers, and the libraries; for methods that send weights, also the sum of the clients'
    changes, a gradient and its momentum.

    Args:
        dimension: d.
        frozen: weights of the model that are not trained; on CPUs, actors share them.
        layer: trainable weights of the largest layer; used if probes hold one layer at a time.
        activation, layers: as in ``tasks.contract.Count``.
    """
    task, resources = experiment.task, experiment.resources
    method = experiment.method
    copies = 1 + method.curvature_row.vectors + (method.momentum > 0) + (method.averaging > 0)
    trains = method.row.first_order or experiment.federation.local_steps > 1
    copies += 2 if experiment.sends_weights else trains
    copies += method.row.first_order
    width = 4 if task.dtype == "float32" else 2
    whole = 0 if shares_frozen(experiment) else frozen
    whole += dimension * (task.sparse_fraction < 1)
    kept = 4 * dimension * int(resources.direction_cache_mb * 2**20 // (4 * dimension))
    own = method.directions == "per_client" and not experiment.sends_weights
    clients = experiment.federation.clients_per_round if own else 1
    steps = 1 if experiment.sends_weights else experiment.record_steps
    used = 4 * dimension * steps * method.directions_per_step * clients
    directions = min(kept, used) if method.row.draws else 0
    held = dimension
    if resources.probe_weights == "layer":
        assert layer is not None
        held = layer
    perturbed = probe_bytes(experiment, held)
    weights = 4 * dimension * copies + perturbed + width * whole
    remembered = directions + states_bytes(experiment)
    return weights + remembered + activation_bytes(experiment, activation, layers) + LIBRARIES


def activation_bytes(experiment: Experiment, activation: int, layers: int) -> int:
    """Memory of the activations of the largest batch, and of logits if text is generated.

    Args:
        activation: elements that one layer holds per example; 0 if unknown.
        layers: number of layers whose activations a gradient keeps.
    """
    if activation == 0:
        return 0
    task, method = experiment.task, experiment.method
    width = 4 if task.dtype == "float32" else 2
    kept = layers if method.row.first_order or method.probe == "exact" else 1
    examples = max(kept * task.batch_size * clients_together(experiment), task.eval_batch_size)
    logits = 4 * 2 * LOGITS * (task.max_new_tokens != "auto")
    return width * activation * examples + logits


def states_bytes(experiment: Experiment) -> int:
    """Memory budget for the states of frozen layers; the actual need is known only once the
    examples are read."""
    keeps = experiment.task.frozen_layers != "recompute"
    return int(experiment.resources.frozen_states_mb * 2**20) * keeps


def shares_frozen(experiment: Experiment) -> bool:
    """Whether the actors of a node share one copy of the frozen weights."""
    return gpus_held(experiment.resources) == 0 and experiment.task.sparse_fraction == 1


def frozen_bytes(experiment: Experiment, frozen: int) -> int:
    """Memory of the frozen weights that the actors of a node share."""
    return probe_bytes(experiment, frozen) if shares_frozen(experiment) else 0


def probe_bytes(experiment: Experiment, weights: int) -> int:
    """Memory of this number of weights in the dtype of the forward passes."""
    return (4 if experiment.task.dtype == "float32" else 2) * weights


def actor_gpu_bytes(
    experiment: Experiment,
    dimension: int,
    frozen: int = 0,
    layer: int | None = None,
    activation: int = 0,
    layers: int = 1,
) -> int:
    """Lower bound of an actor's GPU memory [bytes]: as :func:`actor_bytes`, but with CUDA's own
    memory instead of the libraries, without philox directions, which GPUs generate inside kernels,
    and without the sum of the clients' changes, which stays in host memory."""
    kept = experiment.resources.direction_cache_mb * (experiment.method.generator != "philox")
    experiment = experiment.changed(
        **{"resources.gpus_per_client": 1.0, "resources.direction_cache_mb": kept}
    )
    on_host = LIBRARIES + 4 * dimension * experiment.sends_weights
    own = CONTEXT + _chunk_bytes(experiment, dimension)
    need = actor_bytes(experiment, dimension, frozen, layer, activation, layers)
    return need - on_host + own


def _chunk_bytes(experiment: Experiment, dimension: int) -> int:
    """Memory for chunks of directions where passes over the weights have no kernel of their own."""
    method = experiment.method
    plain = method.curvature_row.elementwise and method.momentum == 0
    if not method.row.draws or (plain and not method.row.second_differences):
        return 0
    shared = method.directions == "shared"
    names = method.directions_per_step
    names *= 1 if shared else experiment.federation.clients_per_round
    side_by_side = (
        experiment.record_steps * min(names, STREAMS) * (1 + method.row.second_differences)
    )
    return 4 * min(dimension, CHUNK["cuda"]) * side_by_side


def gpus_held(resources: ResourcesConfig) -> float:
    """GPUs that an actor holds; 0 for ``auto`` until the need is measured."""
    return 0.0 if resources.gpus_per_client == "auto" else resources.gpus_per_client
