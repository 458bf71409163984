"""Fixed sparse masks: a prepared task of which only some weights are trained.

All others keep their values of x_0. By which rule the weights are chosen is ``task.sparse_by``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from hiso_ray.config import Experiment, TaskConfig
from hiso_ray.errors import UserError
from hiso_ray.method.layout import Layout
from hiso_ray.seeds import Purpose, generator
from hiso_ray.tasks.contract import Count, Prepared
from hiso_ray.tasks.sensitivity import squared_gradients


def kept(weights: int, config: TaskConfig) -> int:
    """How many of some weights a mask keeps.

    Raises:
        UserError: none.
    """
    keep = round(config.sparse_fraction * weights)
    if keep == 0:
        raise UserError(
            f"task.sparse_fraction = {config.sparse_fraction:g}: of {weights:,} weights the mask "
            f"would keep none; give {1 / weights:.1g} or more"
        )
    return keep


def counted(whole: Count, config: TaskConfig) -> Count:
    """The counts of a model, with the mask if there is one.

    Raises:
        UserError: the mask would keep no weight.
    """
    if config.sparse_fraction == 1:
        return whole
    keep = kept(whole.trainable, config)
    return whole._replace(
        trainable=keep,
        frozen=whole.frozen + whole.trainable - keep,
        layer=min(keep, whole.layer),
    )


def choose(experiment: Experiment, prepared: Prepared, functions: Any) -> np.ndarray:
    """The mask: (d,) int64 positions of the kept weights in x_0, ascending.

    Args:
        prepared: with all D weights.
        functions: of the task's module; see ``row.Row``.

    Raises:
        UserError: the mask would keep no weight, or as in ``sensitivity``.
    """
    config, x0 = experiment.task, prepared.x0
    keep = kept(x0.size, config)
    if config.sparse_by == "random":
        rng = generator(experiment.seed, Purpose.SPARSE_MASK)
        return np.sort(rng.choice(x0.size, keep, replace=False)).astype(np.int64)
    if config.sparse_by == "sensitivity":
        return largest(squared_gradients(experiment, prepared, functions, keep), keep)
    return largest(np.abs(x0), keep)


def largest(scores: np.ndarray, keep: int) -> np.ndarray:
    """(keep,) int64 positions of the largest scores, ascending; of equal scores the first are kept,
    whatever order ``np.partition`` leaves."""
    least = np.partition(scores, scores.size - keep)[scores.size - keep]
    larger, equal = np.flatnonzero(scores > least), np.flatnonzero(scores == least)
    return np.sort(np.concatenate([larger, equal[: keep - larger.size]])).astype(np.int64)


def masked(prepared: Prepared, index: np.ndarray) -> Prepared:
    """The task with d of its D weights trained.

    x_0 and the layout become those of the kept weights, as flat pieces of tensors. The arrays
    "mask/index" and "mask/base" and the specification's "dense" are the parts of ``flat.Mask``.

    Args:
        index: from :func:`choose`.

    Raises:
        UserError: it is of a model with more weights.
    """
    dense, base = prepared.spec["layout"], prepared.x0
    if index[-1] >= base.size:
        raise UserError(
            f"the mask has a weight {index[-1]:,}, and the model {base.size:,} weights to choose "
            "from: put the model back that the run began with"
        )
    return replace(
        prepared,
        spec=prepared.spec | {"layout": _pieces(dense, index), "dense": dense},
        arrays=prepared.arrays | {"mask/index": index, "mask/base": base},
        x0=base[index],
        frozen=prepared.frozen + base.size - index.size,
    )


def _pieces(layout: Layout, index: np.ndarray) -> Layout:
    ends = np.cumsum([int(np.prod(shape)) for _, shape in layout])
    counts = np.diff(np.concatenate([[0], np.searchsorted(index, ends)]))
    return tuple((name, (int(n),)) for (name, _), n in zip(layout, counts, strict=True) if n)
