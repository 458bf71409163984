"""How many client actors, and how many clients on each: arithmetic, no Ray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hiso_ray.config import Experiment, ResourcesConfig
from hiso_ray.config.resources import even_share
from hiso_ray.work_units import clients_together

LIBRARIES = 400 * 2**20  # torch and transformers, imported [bytes]
# CUDA's context, kernels and handles in each process, outside torch's allocator [bytes]
CONTEXT = 600 * 2**20
GPU_CHUNK, STREAMS = 1 << 22, 32  # as in method.direction and method.scalar
LOGITS = 1 << 24  # as in tasks.generation
CURVATURE_COPIES = {  # vectors of d floats that H takes; a handful of floats counts for nothing
    "none": 0, "scalar": 0, "tensor": 0, "row": 0,
    "diagonal": 1, "frozen": 1, "oracle": 1, "random": 2, "permuted": 3,
}  # fmt: skip


@dataclass(frozen=True)
class Placement:
    """Who runs where.

    Attributes:
        actors: client actors.
        one_each: each client has an actor of its own (client id = actor number); otherwise
            clients are packed and any actor runs any client.
        line: what the user is told.
        per_node: how many actors each node would hold.
    """

    actors: int
    one_each: bool
    line: str
    per_node: tuple[int, ...]


@dataclass(frozen=True)
class Node:
    """What one machine of the cluster has, in Ray's words.

    Attributes:
        memory: bytes.
    """

    cpus: float
    gpus: float
    memory: float


def actor_bytes(
    experiment: Experiment,
    dimension: int,
    frozen: int = 0,
    layer: int | None = None,
    activation: int = 0,
    layers: int = 1,
) -> int:
    """Memory an actor needs at least: x, H, local x, the perturbed weights of the model or of a
    layer, the frozen weights, the directions it remembers, activations, the states of frozen layers
    it may keep, and the libraries; for methods that send weights, also the sum of what clients
    send, a gradient and its momentum.

    Args:
        dimension: d.
        frozen: weights of the model that are not trained; on CPUs, actors share them.
        layer: trainable weights of the largest layer; read where probes hold one at a time.
        activation, layers: as in ``tasks.contract.Count``.
    """
    task, resources = experiment.task, experiment.resources
    method = experiment.method
    copies = 1 + CURVATURE_COPIES[method.curvature] + (method.momentum > 0)
    copies += 2 if experiment.sends_weights else experiment.federation.local_steps > 1
    copies += method.row.first_order
    width = 4 if task.dtype == "float32" else 2
    whole = 0 if shares_frozen(experiment) else frozen
    whole += dimension * (task.sparse_fraction < 1)
    kept = 4 * dimension * int(resources.direction_cache_mb * 2**20 // (4 * dimension))
    own = method.directions == "per_client" and not experiment.sends_weights
    clients = experiment.federation.clients_per_round if own else 1
    steps = 1 if experiment.sends_weights else experiment.federation.local_steps
    used = 4 * dimension * steps * method.num_perturbations * clients
    directions = 0 if method.row.first_order else min(kept, used)
    held = dimension
    if resources.probe_weights == "layer":
        assert layer is not None
        held = layer
    perturbed = probe_bytes(experiment, held)
    weights = 4 * dimension * copies + perturbed + width * whole
    remembered = directions + states_bytes(experiment)
    return weights + remembered + activation_bytes(experiment, activation, layers) + LIBRARIES


def activation_bytes(experiment: Experiment, activation: int, layers: int) -> int:
    """Memory of the activations of the largest batch, and of logits where text is generated.

    Args:
        activation: elements that one layer holds of an example; 0 where that is not known.
        layers: how many layers' a gradient keeps.
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
    """Memory for the states of frozen layers: the budget, since what all examples need is known
    only once they are read."""
    keeps = experiment.task.frozen_layers == "once"
    return int(experiment.resources.frozen_states_mb * 2**20) * keeps


def shares_frozen(experiment: Experiment) -> bool:
    """Whether the actors of a node read the same frozen weights."""
    return _gpus(experiment.resources) == 0 and experiment.task.sparse_fraction == 1


def frozen_bytes(experiment: Experiment, frozen: int) -> int:
    """Memory of the frozen weights that the actors of a node share."""
    return probe_bytes(experiment, frozen) if shares_frozen(experiment) else 0


def probe_bytes(experiment: Experiment, weights: int) -> int:
    """Memory of so many weights in the dtype of the forward passes."""
    return (4 if experiment.task.dtype == "float32" else 2) * weights


def actor_gpu_bytes(
    experiment: Experiment,
    dimension: int,
    frozen: int = 0,
    layer: int | None = None,
    activation: int = 0,
    layers: int = 1,
) -> int:
    """Memory of its GPU that an actor needs at least: as :func:`actor_bytes`, but CUDA's own in
    place of the libraries, no philox directions, which GPUs make inside their kernels, and not the
    sum of what clients send, which lies in the machine's memory."""
    kept = experiment.resources.direction_cache_mb * (experiment.method.generator != "philox")
    experiment = experiment.changed(
        **{"resources.gpus_per_client": 1.0, "resources.direction_cache_mb": kept}
    )
    on_host = LIBRARIES + 4 * dimension * experiment.sends_weights
    own = CONTEXT + _chunk_bytes(experiment, dimension)
    need = actor_bytes(experiment, dimension, frozen, layer, activation, layers)
    return need - on_host + own


def _chunk_bytes(experiment: Experiment, dimension: int) -> int:
    """What chunks of directions take where passes over the weights are no kernels of their own."""
    method, federation = experiment.method, experiment.federation
    plain = method.curvature in ("none", "diagonal", "frozen", "oracle") and method.momentum == 0
    if method.row.first_order or (plain and not method.row.second_differences):
        return 0
    shared = method.directions == "shared"
    names = method.num_perturbations * (1 if shared else federation.clients_per_round)
    side_by_side = (
        federation.local_steps * min(names, STREAMS) * (1 + method.row.second_differences)
    )
    return 4 * min(dimension, GPU_CHUNK) * side_by_side


def place(
    experiment: Experiment,
    nodes: Sequence[Node],
    dimension: int,
    frozen: int = 0,
    layer: int | None = None,
    activation: int = 0,
    layers: int = 1,
) -> Placement:
    """One client per actor where the nodes hold them all, else evenly packed.

    Args:
        nodes: the machines of the cluster; an actor lives on one of them.
        dimension: d.
        frozen: weights of the model that are not trained.
        layer, activation, layers: as in :func:`actor_bytes`.

    Raises:
        ValueError: not even one actor fits, or the packing asked for needs more than there is.
    """
    resources, clients = experiment.resources, experiment.federation.num_clients
    need = actor_bytes(experiment, dimension, frozen, layer, activation, layers)
    per_node = tuple(_fits(resources, node, need) for node in nodes)
    fits = sum(per_node)
    if fits == 0:
        raise ValueError(_why_not(resources, nodes, need))
    limit = fits if resources.max_actors == "auto" else min(fits, resources.max_actors)
    if resources.clients_per_actor == "auto":
        actors = clients if clients <= limit else limit
    else:
        actors = -(-clients // resources.clients_per_actor)
        if actors > limit:
            raise ValueError(
                f"resources.clients_per_actor = {resources.clients_per_actor} needs {actors} "
                f"actors for {clients} clients, but {limit} fit: raise clients_per_actor to at "
                f"least {-(-clients // limit)}, or lower cpus_per_client or gpus_per_client"
            )
    one_each = actors == clients
    packed = "one each" if one_each else f"{-(-clients // actors)} per actor"
    share = f"{resources.cpus_per_client:g} CPU"
    if gpus := _gpus(resources):
        share += f" and {gpus:g} GPU"
    line = f"{clients} clients on {actors} actor{'s' * (actors > 1)}, {packed}, {share} each"
    return Placement(actors, one_each, line, per_node)


def share_for(held: int, total: int) -> float:
    """The share of a GPU for an actor that held so many of its bytes: a tenth more, and the largest
    share of which as many fit.

    Args:
        held: CUDA's own included, as no less than ``CONTEXT``: a cap takes that off the share.
    """
    fits = max(1, int(total / (1.1 * held)))
    return even_share(fits)


def _gpus(resources: ResourcesConfig) -> float:
    """GPUs an actor holds; ``auto`` is none until it has been measured."""
    return 0.0 if resources.gpus_per_client == "auto" else resources.gpus_per_client


def _fits(resources: ResourcesConfig, node: Node, need: int) -> int:
    """Actors that one node holds."""
    fits = int(node.cpus / resources.cpus_per_client + 1e-9)
    share = _gpus(resources)
    if share == 0:
        return int(min(fits, node.memory / need))
    if share >= 1:
        return min(fits, int(node.gpus / share))
    # Fractions do not span GPUs: 0.4 fits twice on one, not five times on two. A placement group's
    # bundle may itself be a part of one.
    whole, part = divmod(node.gpus, 1)
    on_gpus = int(whole) * int(1 / share + 1e-9) + int(part / share + 1e-9)
    return min(fits, on_gpus)


def _why_not(resources: ResourcesConfig, nodes: Sequence[Node], need: int) -> str:
    share = _gpus(resources)
    largest = "the largest node has" if len(nodes) > 1 else "the cluster has"
    cpus, gpus, memory = (
        max(getattr(n, name) for n in nodes) for name in ("cpus", "gpus", "memory")
    )
    if cpus == 0:
        return (
            "no node of the cluster has CPUs yet: wait until its workers have joined (on an "
            "autoscaling cluster, give their type min_workers)"
        )
    if resources.cpus_per_client > cpus:
        return (
            f"resources.cpus_per_client = {resources.cpus_per_client:g}, but {largest} "
            f"{cpus:g} CPUs: lower cpus_per_client"
        )
    if share > gpus:
        return (
            f"resources.gpus_per_client = {share:g}, but {largest} {gpus:g} "
            "GPUs: start Ray where GPUs are, lower gpus_per_client, or leave it out to run on CPUs"
        )
    if share == 0 and need > memory:
        return (
            f"an actor needs about {need / 2**30:.1f} GiB for this model, but {largest} "
            f"{memory / 2**30:.1f} GiB: a smaller model, LoRA (task.lora.r 8), or "
            "method.curvature scalar or none"
        )
    return (
        f"no node holds {resources.cpus_per_client:g} CPUs and {share:g} GPUs "
        "together: lower cpus_per_client or gpus_per_client"
    )
