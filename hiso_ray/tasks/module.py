"""Classification with a torch module whose trainable parameters are views into one flat vector."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from hiso_ray.messages import Score
from hiso_ray.tasks.contract import Layout, dimension, views


class Batch(NamedTuple):
    """What the module reads, and (n,) int64 classes, both on the task's device."""

    inputs: Any
    labels: Tensor


class ModuleTask(ABC):
    """Evaluates a classifier at any flat weight vector by pointing its parameters into it.

    Binding moves no data, so the module adds nothing to the memory of the weights themselves. A
    subclass says how a batch is made and how its logits are computed.

    Args:
        module: put into evaluation mode (no dropout); its own trainable storage is released.
        layout: the trainable parameters; all others stay as the module has them.
        eval_examples, eval_batch_size: decide the fixed evaluation batches: consecutive examples,
            the last batch as short as it is.
    """

    def __init__(
        self, module: nn.Module, layout: Layout, eval_examples: int, eval_batch_size: int
    ) -> None:
        self.module = module.eval().requires_grad_(False)
        self.layout = layout
        self.eval_batches = -(-eval_examples // eval_batch_size)
        self._eval_examples, self._eval_batch_size = eval_examples, eval_batch_size
        parameters = dict(module.named_parameters())
        self._trainable = [parameters[name] for name, _ in layout]
        self._dimension = dimension(layout)
        self._bound_to: Tensor | None = None

    @abstractmethod
    def make_batch(self, split: str, examples: np.ndarray) -> Batch:
        """The examples of a split ("train" or "eval") as tensors on the device."""

    @abstractmethod
    def logits(self, inputs: Any) -> Tensor:
        """(n, classes), in any dtype."""

    def batch(self, examples: np.ndarray) -> Batch:
        return self.make_batch("train", examples)

    @torch.inference_mode()
    def losses(self, weights: Tensor, batches: Sequence[Batch]) -> np.ndarray:
        self._bind(weights)
        out = [
            nn.functional.cross_entropy(self.logits(inputs).float(), labels)
            for inputs, labels in batches
        ]
        return torch.stack(out).double().cpu().numpy()

    @torch.inference_mode()
    def score(self, weights: Tensor, batch: int) -> Score:
        self._bind(weights)
        first = batch * self._eval_batch_size
        last = min(first + self._eval_batch_size, self._eval_examples)
        inputs, labels = self.make_batch("eval", np.arange(first, last))
        logits = self.logits(inputs).float()
        loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
        return Score(float(loss), int((logits.argmax(-1) == labels).sum()), last - first)

    def _bind(self, weights: Tensor) -> None:
        if weights is self._bound_to:
            return
        assert weights.numel() == self._dimension
        self._bound_to = weights
        tensors = views(weights, self.layout).values()
        for parameter, view in zip(self._trainable, tensors, strict=True):
            parameter.data = view


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
