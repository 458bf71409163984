"""A fixed sparse mask inside a task: the flat vector holds only some of the module's weights."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hiso_ray.method.layout import Layout
from hiso_ray.tasks.contract import Prepared


class Mask:
    """Turns the d weights that are trained into all D.

    Args:
        index: (d,) int64, position of each of them in the D weights of ``layout``.
        base: (D,) float32, the values of all others.
        layout: of the module's tensors.
    """

    def __init__(self, index: np.ndarray, base: np.ndarray, layout: Layout) -> None:
        self.layout = layout
        self._arrays = index, base
        self._base: Tensor | None = None

    def spread(self, weights: Tensor) -> Tensor:
        """(..., D) of (..., d) weights, new and differentiable."""
        base, index = self._tensors(weights)
        return base.expand(*weights.shape[:-1], -1).index_copy(-1, index, weights)

    def write(self, weights: Tensor) -> Tensor:
        """(D,) of (d,) weights: the same tensor every time, with these weights written into it."""
        base, index = self._tensors(weights)
        return base.index_copy_(0, index, weights)

    @torch.inference_mode(False)  # autograd could not save tensors made in inference mode
    def _tensors(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """A dense copy, correct except at the mask's positions, and these positions."""
        wanted = (like.dtype, like.device)
        if self._base is None or (self._base.dtype, self._base.device) != wanted:
            index, base = self._arrays
            self._base = torch.tensor(base, dtype=like.dtype, device=like.device)
            self._index = torch.tensor(index, device=like.device)
        return self._base, self._index


def mask_in(prepared: Prepared) -> Mask | None:
    """The mask of a prepared task, if it has one."""
    if "mask/index" not in prepared.arrays:
        return None
    index, base = prepared.arrays["mask/index"], prepared.arrays["mask/base"]
    return Mask(index, base, layout_in(prepared, "dense"))


def layout_in(prepared: Prepared, name: str = "layout") -> Layout:
    """A layout of a task's specification, which may have been JSON."""
    return tuple((tensor, tuple(shape)) for tensor, shape in prepared.spec[name])
