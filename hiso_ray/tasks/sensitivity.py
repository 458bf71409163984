"""How sensitive the loss is to each weight: its squared gradient, on text that no client holds.

Meerkat (Ran et al., arXiv 2506.03337) trains the weights with the largest mean squared gradient
(the diagonal of the empirical Fisher matrix at x_0), measured once by the server on a part of C4
and sent to the clients as a mask. Here the gradient is that of one passage, or of one validation
example, at a time, so that opposite gradients do not cancel before they are squared.

The bits depend on the kind of processor and the number of threads, which is that of the run's
actors. A run keeps its mask in its folder, and resumes and replays with that one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from hiso_ray.config import Experiment
from hiso_ray.errors import UserError
from hiso_ray.tasks.contract import Prepared
from hiso_ray.tasks.flat.batch import Batch
from hiso_ray.tasks.flat.module import ModuleTask
from hiso_ray.tasks.threads import torch_threads

CPU = torch.device("cpu")


def squared_gradients(
    experiment: Experiment, prepared: Prepared, functions: Any, keep: int
) -> np.ndarray:
    """(D,) float32 sums of the squared gradients at x_0, over the passages of ``task.sparse_text``
    or else over the validation examples.

    Args:
        prepared: with all D weights.
        functions: of the task's module; see ``row.Row``.
        keep: how many weights a mask takes of them.

    Raises:
        UserError: no passages, gradients that are not finite, or fewer than ``keep`` weights with a
            gradient.
    """
    config = experiment.task
    if config.sparse_text:
        task, batches = functions.plain_text(config, prepared)
    else:
        task = functions.build(config, prepared, CPU)
        batches = _validation(task, config.validation_examples)
    with torch_threads(experiment):
        squares = _sum_of_squares(task, prepared.x0, batches)
    where = described(experiment)
    if not np.isfinite(squares).all():
        raise UserError(
            f"task.sparse_by = sensitivity: gradients on {where} are not finite; set task.dtype "
            "to float32"
        )
    found = np.count_nonzero(squares)
    if found < keep:
        raise UserError(
            f"task.sparse_by = sensitivity: {found:,} of {squares.size:,} weights have a gradient "
            f"on {where}, and the mask would keep {keep:,}; lower task.sparse_fraction below "
            f"{found / squares.size:.2g}, or measure on more"
        )
    return squares


def described(experiment: Experiment) -> str:
    """What the gradients are measured on, in words."""
    config = experiment.task
    return config.sparse_text or f"{config.validation_examples} validation examples"


def _validation(task: ModuleTask, examples: int) -> Iterable[Batch]:
    return (task.make_batch("eval", [np.array([i])]) for i in range(examples))


def _sum_of_squares(task: ModuleTask, x0: np.ndarray, batches: Iterable[Batch]) -> np.ndarray:
    x = torch.tensor(x0)
    total = torch.zeros_like(x)
    for batch in batches:
        _, gradient = task.gradient(x, batch)
        total.addcmul_(gradient, gradient)
    return total.numpy()
