"""What a task is: examples, a model over one flat weight vector, a loss and a score.

The process that starts a run loads the task once (:class:`Prepared`: plain read-only arrays, sent
to every node once), and each process that computes builds it (:class:`Task`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor

from hiso_ray.messages import Score
from hiso_ray.method.layout import Layout
from hiso_ray.tasks.exported import Exported


@dataclass(frozen=True)
class Prepared:
    """A task read from its sources: everything a process needs to build it, and x_0.

    Attributes:
        spec: JSON-able description (model configuration, layout, answer tokens, ...).
        arrays: the examples, as numpy arrays to be shared read-only.
        x0: (d,) float32 initial weights.
        labels: (n,) int64 group of every training example, for the partition: its class, or the
            group that ``federation.by`` asks for.
        label_names: names of the groups.
        classes: name of the array that holds the class of every training example; empty if the task
            does not tell classes apart.
        num_classes: number of classes that it tells apart.
        frozen: number of the model's weights that are not trained.
        notes: lines to tell the user once.
        activation, layers: as in :class:`Count`.
    """

    spec: dict[str, Any]
    arrays: dict[str, np.ndarray]
    x0: np.ndarray
    labels: np.ndarray
    label_names: tuple[str, ...]
    frozen: int = 0
    notes: tuple[str, ...] = field(default=())
    activation: int = 0
    layers: int = 1
    classes: str = ""
    num_classes: int = 0

    @property
    def size(self) -> Count:
        layer = largest_layer(self.spec["layout"])
        return Count(self.x0.size, self.frozen, layer, self.activation, self.layers)


class Count(NamedTuple):
    """How many weights a model has, and how much memory its forward pass takes.

    Attributes:
        trainable: d.
        frozen: number of weights that are not trained.
        layer: trainable weights of the largest layer; see :func:`largest_layer`.
        activation: elements that one layer holds per example while it runs, roughly.
        layers: number of layers; a gradient keeps the activations of all.
    """

    trainable: int
    frozen: int
    layer: int
    activation: int = 0
    layers: int = 1


class Slices(Protocol):
    """(d,) weights produced slice by slice, where a whole copy would need too much memory."""

    @property
    def whole(self) -> Tensor | None:
        """(d,) float32 if the weights are already in memory, else None; read-only."""
        ...

    def write(self, out: Tensor, start: int) -> Tensor:
        """Fills ``out``, (n,) in the dtype of the forward passes, with the elements from ``start``
        on and returns it. The bits do not depend on how the weights are sliced."""
        ...


class Several(Protocol):
    """Small networks: one computation for several weight vectors.

    Attributes:
        at_once: the maximum number of weight vectors.
    """

    at_once: int

    def losses_at(self, weights: Tensor, batches: Sequence[Any]) -> np.ndarray:
        """``Task.losses`` at several weight vectors, in one computation.

        Args:
            weights: (k, d) in the dtype of the forward passes, k up to ``at_once``.

        Returns:
            (k, clients of all batches) float64.
        """
        ...

    def losses_of_each(self, weights: Tensor, batch: Any) -> np.ndarray:
        """Each client's mean loss at weight vectors of its own, in one computation.

        Args:
            weights: (clients of the batch, k, d) in the dtype of the forward passes.

        Returns:
            (k, clients) float64.
        """
        ...


class Task(Protocol):
    """A built task on one device. Methods are pure: same weights and batch, same result."""

    layout: Layout
    eval_batches: int
    several: Several | None
    """Computes losses at several weight vectors at once; None where one by one is better."""

    def batch(self, *clients: np.ndarray) -> Any:
        """Training examples of clients that share a forward pass; made once, used by every probe.

        Args:
            clients: the minibatch of each client, (n,) example indices.
        """
        ...

    def losses(self, weights: Tensor | Slices, batches: Sequence[Any]) -> np.ndarray:
        """Each client's mean loss on its own minibatch, at the same weights; one forward pass per
        batch.

        Args:
            weights: (d,) in the dtype of the forward passes, or slices of them, which give the
                same bits with one layer in memory at a time. Tasks without layers reject slices.
            batches: from :meth:`batch`.

        Returns:
            (clients of all batches,) float64, from float32 losses.

        Raises:
            UserError: the model does not support weights layer by layer.
        """
        ...

    def gradient(self, weights: Tensor, batch: Any) -> tuple[float, Tensor]:
        """Loss of a minibatch and its gradient.

        The forward pass has the dtype and the loss of :meth:`losses`.

        Args:
            weights: (d,) float32 masters, whatever the dtype of the forward passes; not written to.
            batch: from :meth:`batch`, of one client.

        Returns:
            The float32 loss as a float, and (d,) float32.

        Raises:
            UserError: the loss has no gradient.
        """
        ...

    def slopes(
        self, weights: Tensor, direction: Tensor, batches: Sequence[Any]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Exact directional derivatives ⟨∇F, z⟩ of each client's loss, by forward-mode
        differentiation.

        Args:
            weights: (d,) float32 masters, not written to.
            direction: z, (d,) float32, of any length.
            batches: from :meth:`batch`.

        Returns:
            ⟨∇F, z⟩ and F, both (clients of all batches,) float64, from float32.

        Raises:
            UserError: the loss has no gradient.
        """
        ...

    def hessian_vector(self, weights: Tensor, vector: Tensor, batch: Any) -> Tensor:
        """∇²F v on a minibatch, for small models.

        Args:
            weights: (d,) float32 masters, not written to.
            vector: v, (d,) float32.
            batch: from :meth:`batch`, of one client.

        Returns:
            (d,) float32.

        Raises:
            UserError: the loss has no gradient.
        """
        ...

    def score(self, weights: Tensor | Slices, batch: int) -> Score:
        """Losses and scores of evaluation batch ``batch``; batches are fixed for the whole run, and
        ``weights`` are as in :meth:`losses`."""
        ...

    def export(self, weights: Tensor, folder: Path) -> Exported | None:
        """Writes the model to a folder (safetensors); what it returns goes into its card."""
        ...


def largest_layer(layout: Layout) -> int:
    """Trainable weights of the largest layer: those of one module and of its ancestors."""
    own: dict[str, int] = {}
    for name, shape in layout:
        module = name.rpartition(".")[0]
        own[module] = own.get(module, 0) + int(np.prod(shape))
    return most_at_once(own)


def most_at_once(own: Mapping[str, int]) -> int:
    """The largest sum over a module and all its ancestors.

    Args:
        own: a number for each module, by its full name.
    """
    return max(sum(own.get(outer, 0) for outer in _around(module)) for module in own)


def _around(module: str) -> Iterator[str]:
    """ "a.b" -> "", "a", "a.b"."""
    yield ""
    parts = module.split(".") if module else []
    for depth in range(len(parts)):
        yield ".".join(parts[: depth + 1])


def views(flat: Tensor, layout: Layout) -> dict[str, Tensor]:
    """The named tensors inside a flat vector, without copying."""
    sizes = [int(np.prod(shape)) for _, shape in layout]
    parts = flat.split(sizes)
    return {name: part.view(shape) for (name, shape), part in zip(layout, parts, strict=True)}
