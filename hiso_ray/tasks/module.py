"""A torch module whose trainable parameters are views into one flat vector."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from hiso_ray.messages import Score
from hiso_ray.tasks.contract import Layout, dimension, views

# indices of examples -> (logits of the classes, labels)
Forward = Callable[[np.ndarray], tuple[Tensor, Tensor]]


class BoundModule:
    """Evaluates a classifier at any flat weight vector by pointing its parameters into it.

    Binding moves no data, so the module adds nothing to the memory of the weights themselves.

    Args:
        module: put into evaluation mode (no dropout); its own trainable storage is released.
        layout: the trainable parameters; all others stay as the module has them.
    """

    def __init__(self, module: nn.Module, layout: Layout) -> None:
        self.module = module.eval().requires_grad_(False)
        self.layout = layout
        parameters = dict(module.named_parameters())
        self._trainable = [parameters[name] for name, _ in layout]
        self.dimension = dimension(layout)
        self._bound_to: Tensor | None = None

    def bind(self, weights: Tensor) -> None:
        if weights is self._bound_to:
            return
        assert weights.numel() == self.dimension
        self._bound_to = weights
        for parameter, view in zip(
            self._trainable, views(weights, self.layout).values(), strict=True
        ):
            parameter.data = view

    @torch.inference_mode()
    def losses(
        self, weights: Tensor, batches: Sequence[np.ndarray], forward: Forward
    ) -> np.ndarray:
        """Mean cross-entropy per batch, from float32 logits whatever the weights' dtype."""
        self.bind(weights)
        out = []
        for batch in batches:
            logits, labels = forward(batch)
            out.append(nn.functional.cross_entropy(logits.float(), labels))
        return torch.stack(out).double().cpu().numpy()

    @torch.inference_mode()
    def score(self, weights: Tensor, batch: np.ndarray, forward: Forward) -> Score:
        self.bind(weights)
        logits, labels = forward(batch)
        logits = logits.float()
        loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
        return Score(float(loss), int((logits.argmax(-1) == labels).sum()), len(batch))


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


def eval_slices(total: int, size: int) -> list[np.ndarray]:
    """The fixed evaluation batches: consecutive examples, the last one as short as it is."""
    return [np.arange(i, min(i + size, total)) for i in range(0, total, size)]
