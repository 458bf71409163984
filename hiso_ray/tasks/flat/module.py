"""A torch module whose trainable parameters are views into one flat vector."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from hiso_ray.config import TaskConfig
from hiso_ray.messages import Score
from hiso_ray.method.layout import Layout, dimension
from hiso_ray.tasks.contract import Several, Slices, views
from hiso_ray.tasks.flat import derivatives
from hiso_ray.tasks.flat.batch import Batch, client_means, cross_entropy
from hiso_ray.tasks.flat.layers import Layers
from hiso_ray.tasks.flat.mask import Mask


class ModuleTask(ABC):
    """Evaluates a module at any flat weight vector by pointing its parameters into it.

    Binding moves no data, so the module adds nothing to the memory of the weights themselves; with
    a mask, the d weights are written into a dense copy instead. Weights that come as slices are
    bound layer by layer (``layers``). Derivatives do not change the module's parameters: they call
    it with views of a flat leaf in their place. A subclass defines how a batch is made and how its
    logits or losses are computed.

    Args:
        module: put into evaluation mode (no dropout); its own trainable storage is released.
        layout: the trainable parameters; all others keep the module's values.
        eval_batches: the fixed evaluation batches, of consecutive examples.
        mask: given if the flat vector holds only some weights of the module's tensors.
    """

    several: Several | None = None
    config: TaskConfig  # set by the subclass
    device: torch.device  # likewise

    def __init__(
        self,
        module: nn.Module,
        layout: Layout,
        eval_batches: Sequence[range],
        mask: Mask | None = None,
    ) -> None:
        self.module = module.eval().requires_grad_(False)
        self.layout = layout
        self.eval_batches, self._eval_batches = len(eval_batches), eval_batches
        parameters = dict(module.named_parameters())
        self._tensors = mask.layout if mask else layout
        self._trainable = [parameters[name] for name, _ in self._tensors]
        self._dimension = dimension(layout)
        self._mask = mask
        self._bound_to: Tensor | None = None
        self._layers: Layers | None = None
        self._offsets: np.ndarray | None = None

    @abstractmethod
    def make_batch(self, split: str, clients: Sequence[np.ndarray]) -> Batch:
        """Each client's examples of a split ("train" or "eval") as tensors on the device."""

    @abstractmethod
    def logits(self, inputs: Any) -> Tensor:
        """(terms, classes), in any dtype."""

    def terms(self, batch: Batch) -> Tensor:
        """(terms,) float32 losses."""
        return cross_entropy(self.logits(batch.inputs), batch.labels, batch.offsets)

    def scored(self, examples: np.ndarray, batch: Batch) -> tuple[Tensor, dict[str, np.ndarray]]:
        """(terms,) float32 losses of a batch of evaluation examples, and each metric as (n,)
        float32."""
        logits = self.logits(batch.inputs)
        hits = (logits.argmax(-1) == batch.labels).float().cpu().numpy()
        return cross_entropy(logits, batch.labels), {"accuracy": hits}

    def calibrate(self, offsets: np.ndarray) -> None:
        """From now on training losses are calibrated.

        Args:
            offsets: (training examples, classes) float32, see ``tasks.calibration``.
        """
        self._offsets = offsets

    @torch.inference_mode(False)  # a graph may keep its tensors
    def batch(self, *clients: np.ndarray) -> Batch:
        made = self.make_batch("train", clients)
        if self._offsets is None:
            return made
        offsets = torch.from_numpy(self._offsets[np.concatenate(clients)]).to(self.device)
        return made._replace(offsets=offsets)

    @torch.inference_mode()
    def losses(self, weights: Tensor | Slices, batches: Sequence[Batch]) -> np.ndarray:
        with self._at(weights):
            out = [client_means(self.terms(batch), batch.sizes) for batch in batches]
        return torch.cat(out).double().cpu().numpy()

    def gradient(self, weights: Tensor, batch: Batch) -> tuple[float, Tensor]:
        return derivatives.gradient(self._of_one(batch), weights, self.config.model)

    def slopes(
        self, weights: Tensor, direction: Tensor, batches: Sequence[Batch]
    ) -> tuple[np.ndarray, np.ndarray]:
        losses = [self._losses_of(batch) for batch in batches]
        return derivatives.slopes(losses, weights, direction, self.config.model)

    def hessian_vector(self, weights: Tensor, vector: Tensor, batch: Batch) -> Tensor:
        return derivatives.hessian_vector(self._of_one(batch), weights, vector, self.config.model)

    def _of_one(self, batch: Batch) -> derivatives.Loss:
        assert len(batch.sizes) == 1
        losses = self._losses_of(batch)
        return lambda masters: losses(masters)[0]

    def _losses_of(self, batch: Batch) -> derivatives.Loss:
        """The clients' losses, (clients,), as a differentiable function of the (d,) float32
        masters."""

        def losses(masters: Tensor) -> Tensor:
            usable = Batch(*map(derivatives.usable, batch))
            weights = masters.to(self._dtype)
            if self._mask is not None:
                weights = self._mask.spread(weights)
            terms = functional_call(
                _Terms(self),
                {f"module.{name}": view for name, view in views(weights, self._tensors).items()},
                (usable,),
            )
            return client_means(terms, batch.sizes)

        return losses

    @torch.inference_mode()
    def score(self, weights: Tensor | Slices, batch: int) -> Score:
        examples = np.array(self._eval_batches[batch])
        made = self.make_batch("eval", list(examples[:, None]))
        with self._at(weights):
            terms, points = self.scored(examples, made)
        return Score(terms.cpu().numpy(), np.array(made.sizes, np.int32), points)

    @contextmanager
    def _at(self, weights: Tensor | Slices) -> Iterator[None]:
        """Context in which the module's forward passes use these weights."""
        if not isinstance(weights, Tensor):
            whole = weights.whole
            weights = whole if whole is not None and whole.dtype == self._dtype else weights
        if isinstance(weights, Tensor):
            self._bind(weights)
            yield
            return
        self._bound_to = None
        with self._by_layer().at(weights):
            yield

    @torch.inference_mode(False)  # its tensors stay in the module
    def _by_layer(self) -> Layers:
        if self._layers is None:
            assert self._mask is None
            names = [name for name, _ in self._tensors]
            trainable = list(zip(names, self._trainable, strict=True))
            self._layers = Layers(
                self.module, trainable, self._dtype, self.device, self.config.model
            )
        return self._layers

    @property
    def _dtype(self) -> torch.dtype:
        return getattr(torch, self.config.dtype)

    def _bind(self, weights: Tensor) -> None:
        assert weights.numel() == self._dimension
        if self._mask is not None:
            weights = self._mask.write(weights)
        if weights is self._bound_to:
            return
        self._bound_to = weights
        tensors = views(weights, self._tensors).values()
        for parameter, view in zip(self._trainable, tensors, strict=True):
            parameter.data = view


class _Terms(nn.Module):
    """A task's losses as a module's forward, so that ``functional_call`` finds the parameters."""

    def __init__(self, task: ModuleTask) -> None:
        super().__init__()
        self.module, self._terms = task.module, task.terms

    def forward(self, batch: Batch) -> Tensor:
        return self._terms(batch)


def reached_parameters(loss: Tensor) -> set[int]:
    """ids of the parameters the loss depends on, found on the autograd graph without a backward.

    A parameter that the loss does not reach would random-walk under g·z, so it must be frozen.
    """
    assert loss.grad_fn is not None
    found: set[int] = set()
    seen = {loss.grad_fn}
    todo = [loss.grad_fn]
    while todo:
        node = todo.pop()
        variable = getattr(node, "variable", None)
        if variable is not None:
            found.add(id(variable))
        for parent, _ in node.next_functions:
            if parent is not None and parent not in seen:
                seen.add(parent)
                todo.append(parent)
    return found
