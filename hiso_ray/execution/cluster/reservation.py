"""Reserves the resources of all of a run's actors at once, or raises an error that says what is
missing.

A run that is started inside an existing placement group (a Ray Tune trial) uses that group's
bundles, except the first if the caller occupies it; any other run reserves a group of its own,
spread over the nodes.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import (
    PlacementGroup,
    get_current_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)

from hiso_ray.config import Experiment
from hiso_ray.errors import UserError
from hiso_ray.execution.cluster.client_actor import ClientActor, told
from hiso_ray.execution.cluster.nodes import room_of
from hiso_ray.execution.cluster.shared import Shared
from hiso_ray.execution.contract import OnNote
from hiso_ray.execution.placement import Node, Placement, place, share_for

if TYPE_CHECKING:  # imports torch, which the driver does not need
    from hiso_ray.tasks.contract import Count

MEASURE_SECONDS = 600.0  # for an actor to start and take a turn


@dataclass(frozen=True)
class Reservation:
    """Where the actors run.

    Attributes:
        group: the placement group.
        bundles: the bundle of each actor.
        label: prefix of the actors' names.
        own: the group is the run's, not its caller's.
    """

    placement: Placement
    group: PlacementGroup
    bundles: tuple[int, ...]
    label: str = "hiso"
    own: bool = True

    def again(self) -> Reservation:
        """A copy for a restart of the driver, with a new label: old names may still be taken."""
        return replace(self, label=f"{self.label.rpartition('-')[0]}-{secrets.token_hex(4)}")

    def broken(self) -> bool:
        """Whether part of the run's own group has lost its node and no other node has room."""
        return self.own and placement_group_table(self.group)["state"] == "RESCHEDULING"


@contextmanager
def reserved(
    experiment: Experiment,
    size: Count,
    on_note: OnNote,
    name: str = "hiso",
    after_loss: bool = False,
) -> Iterator[Reservation]:
    """Reserves what the run's actors need, for as long as the context lasts.

    Args:
        experiment: with a number for ``gpus_per_client``; see :func:`with_gpu_share`.
        size: of the model.
        name: of the run, for its actors' names.
        after_loss: nodes have just left; waits, because new ones may be joining.

    Raises:
        UserError: the cluster, or the group that the run is in, cannot hold the actors.
    """
    label = f"{name}-{secrets.token_hex(4)}"
    outer = get_current_placement_group()
    if outer is not None:
        first, nodes = _own_bundles(outer)
        # Activations depend on the data, which had not been read when the group was made.
        placement = place(experiment, nodes, *size._replace(activation=0))
        on_note(f"{placement.line}, in the placement group that this runs in")
        bundles = tuple(
            first + node for node, holds in enumerate(placement.per_node) for _ in range(holds)
        )
        yield Reservation(placement, outer, bundles[: placement.actors], label, own=False)
        return
    placement = _placed(experiment, size, after_loss)
    on_note(placement.line)
    resources = experiment.resources
    bundle = {"CPU": resources.cpus_per_client}
    if resources.gpus_per_client:
        bundle["GPU"] = float(resources.gpus_per_client)
    group = placement_group([bundle] * placement.actors, strategy="SPREAD", name=label)
    try:
        if not group.wait(resources.reserve_seconds):
            raise UserError(_busy(placement.actors, bundle, resources.reserve_seconds))
        yield Reservation(placement, group, tuple(range(placement.actors)), label)
    finally:
        remove_placement_group(group)


def _placed(experiment: Experiment, size: Count, after_loss: bool) -> Placement:
    deadline = time.monotonic() + experiment.resources.reserve_seconds * after_loss
    if after_loss:  # the requested packing may not fit on the remaining nodes
        experiment = experiment.changed(**{"resources.clients_per_actor": "auto"})
    while True:
        try:
            return place(experiment, cluster_nodes(), *size)
        except UserError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(1.0)


def with_gpu_share(experiment: Experiment, shared: Shared, on_note: OnNote) -> Experiment:
    """The experiment with a number in place of ``gpus_per_client: auto``.

    One actor runs a round of the heaviest minibatches on a whole GPU; the share is what it held
    plus 10 %, rounded up so that the shares fill a GPU. Inside an existing placement group, the
    share is that of the group's bundles.

    Raises:
        UserError: a whole GPU is too small.
        UserError: the measuring actor could not run.
    """
    if experiment.resources.gpus_per_client != "auto":
        return experiment
    outer = get_current_placement_group()
    if outer is not None:
        share = min(node.gpus for node in _own_bundles(outer)[1])
        return experiment.changed(**{"resources.gpus_per_client": share})
    if not any(node.gpus >= 1 for node in cluster_nodes()):
        on_note("gpus_per_client auto: the cluster has no GPU, computing on CPUs")
        return experiment.changed(**{"resources.gpus_per_client": 0.0})
    whole = experiment.changed(**{"resources.gpus_per_client": 1.0})
    options: dict[str, Any] = {"num_cpus": experiment.resources.cpus_per_client, "num_gpus": 1}
    actor = ray.remote(**options)(ClientActor).remote(whole, *shared)
    try:
        measured = ray.get(actor.gpu_bytes.remote(), timeout=MEASURE_SECONDS)
    except RayError as error:
        if words := told(error):
            raise words from error
        raise UserError(
            "gpus_per_client auto: one client's turn could not be measured on a whole GPU; give "
            f"resources.gpus_per_client a number ({error})"
        ) from error
    finally:
        ray.kill(actor)
    if measured is None:
        on_note("gpus_per_client auto: torch sees no GPU where Ray has one; one GPU per actor")
        return whole
    held, total = measured
    share = share_for(held, total)
    on_note(
        f"gpus_per_client auto: a round held {held / 2**30:.2f} of {total / 2**30:.1f} GiB, "
        f"so {share:g} GPU an actor"
    )
    return experiment.changed(**{"resources.gpus_per_client": share})


def cluster_nodes() -> list[Node]:
    """Resources of each living node."""
    return [room_of(node) for node in ray.nodes() if node["Alive"]]


def _own_bundles(group: PlacementGroup) -> tuple[int, list[Node]]:
    """(number of the first bundle that a run inside a placement group may use, all those bundles as
    nodes)."""
    first = int(bool(ray.get_runtime_context().get_assigned_resources()))
    bundles = group.bundle_specs[first:]
    if not bundles:
        raise UserError(
            "this runs inside a placement group with one bundle, which leaves no room for client "
            "actors: give it one more bundle per actor, for a Tune trial "
            "PlacementGroupFactory([{}] + [{'CPU': 1}] * actors)"
        )
    return first, [
        Node(b.get("CPU", 0.0), b.get("GPU", 0.0), b.get("memory", float("inf"))) for b in bundles
    ]


def _busy(actors: int, bundle: dict[str, float], seconds: float) -> str:
    free, have = ray.available_resources(), ray.cluster_resources()
    room = min(int(free.get(kind, 0.0) / share + 1e-9) for kind, share in bundle.items())
    said = ", ".join(f"{free.get(k, 0):g} of {have.get(k, 0):g} {k}s" for k in bundle)
    less = f"resources.max_actors {room}" if room else "wait for the other work on the cluster"
    return (
        f"{actors} actors of {bundle} did not become available within {seconds:g} s "
        f"(resources.reserve_seconds); free now: {said}. Ask for less: {less}"
    )
