"""A module whose trainable weights exist one layer at a time, while that layer runs.

Hooks around the forward pass of every submodule that owns trainable parameters write its slices of
the weights into a small buffer, point the parameters there, and reset them afterwards. So a probe
needs memory for the largest layer instead of a second copy of the model, and gives the same bits:

- The bits of matrix products depend on the alignment of their operands. In a whole flat vector a
  parameter begins ``start`` elements after an aligned address; here its address is the same modulo
  ``ALIGNMENT``.
- A module that owns parameters and runs others that do (in custom model classes) is open together
  with them, so the buffer is a stack, as large as the largest layer and its ancestors.
- A parameter that two modules own (tied embeddings) is written for each when it runs, from the same
  slice. One that is already open is written again, and restored when the inner module is done.

A forward pass must never silently read other weights: a module that reads the weight of another
without running it (``nn.MultiheadAttention`` reads that of its output projection) would read stale
memory. So outside its layer's forward pass a parameter has a class that raises on every use except
asking for its shape, dtype and device, and its elements are nan. Frozen parameters and buffers are
not touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from hiso_ray.errors import UserError
from hiso_ray.tasks.contract import Slices, most_at_once

ALIGNMENT = {"cpu": 64, "cuda": 512}  # of torch's storage [bytes]
REMEDY = "use resources.probe_weights whole"
_SAFE = {  # attributes and methods that do not read a parameter's elements
    *(
        getattr(Tensor, name).__get__
        for name in ("device", "dtype", "is_cuda", "layout", "ndim", "requires_grad", "shape")
    ),
    *(getattr(Tensor, name) for name in ("dim", "is_floating_point", "numel", "size")),
}


class _Absent(nn.Parameter):
    """Class of a trainable parameter outside its layer's forward pass.

    Attributes:
        refusal: the error message for the user.
    """

    refusal: str

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _SAFE:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **(kwargs or {}))
        absent = next(leaf for leaf in tree_leaves((args, kwargs)) if type(leaf) is _Absent)
        raise UserError(absent.refusal)


class _Span(NamedTuple):
    """Parameters of one module that are contiguous in the flat vector.

    Attributes:
        start: where the first one begins [elements].
        parameters, sizes, shapes: in order; sizes in elements.
    """

    start: int
    parameters: list[nn.Parameter]
    sizes: list[int]
    shapes: list[torch.Size]


class _Before(NamedTuple):
    """State of a parameter before its layer ran."""

    parameter: nn.Parameter
    kind: type[nn.Parameter]
    data: Tensor


@dataclass
class _Open:
    """A running layer: where its part of the buffer begins, and the state to restore at its end."""

    module: nn.Module
    first: int
    before: list[_Before]


class Layers:
    """A module's trainable parameters, bound layer by layer.

    Args:
        module: gets hooks, which do nothing outside :meth:`at`.
        trainable: full name and parameter, in the order of the flat vector.
        dtype, device: of the forward passes.
        model: what errors call the model.

    Attributes:
        scratch: (n,) buffer that holds the weights of the running layers.
    """

    def __init__(
        self,
        module: nn.Module,
        trainable: Sequence[tuple[str, nn.Parameter]],
        dtype: torch.dtype,
        device: torch.device,
        model: str,
    ) -> None:
        self._parameters = [parameter for _, parameter in trainable]
        self._model, self._grain = model, ALIGNMENT[device.type] // dtype.itemsize
        starts, at = {}, 0
        for name, parameter in trainable:
            cast(_Absent, parameter).refusal = (
                f"task.model {model} reads the weights of {name.rpartition('.')[0] or 'itself'} "
                f"({name}) outside that layer's forward pass; {REMEDY}"
            )
            starts[id(parameter)] = at
            at += parameter.numel()
        nothing = torch.full((), torch.nan, dtype=dtype, device=device)
        self._absent = [nothing.expand(parameter.shape) for parameter in self._parameters]
        need = {}
        for name, layer in module.named_modules():
            spans = _spans(layer, starts)
            if spans:
                need[name] = sum(sum(span.sizes) + self._grain - 1 for span in spans)
                layer.register_forward_pre_hook(partial(self._open, spans), prepend=True)
                layer.register_forward_hook(self._close)
        self.scratch = _aligned(most_at_once(need), dtype, device)
        self._weights: Slices | None = None
        self._running: list[_Open] = []
        self._top = 0
        self._unseen = {id(parameter): name for name, parameter in trainable}

    @contextmanager
    def at(self, weights: Slices) -> Iterator[None]:
        """Context in which the module's forward passes use these weights. Afterwards its trainable
        parameters hold nan until they are bound again.

        Raises:
            UserError: the forward pass reads weights outside their layer, or skips their layer.
        """
        self._weights = weights
        for parameter, nothing in zip(self._parameters, self._absent, strict=True):
            parameter.data = nothing
            parameter.__class__ = _Absent
        try:
            yield
        finally:
            self._weights, self._top = None, 0
            self._running.clear()
            for parameter, nothing in zip(self._parameters, self._absent, strict=True):
                parameter.__class__ = nn.Parameter
                parameter.data = nothing
        if self._unseen:
            name = next(iter(self._unseen.values()))
            raise UserError(
                f"task.model {self._model} did not run the layer that owns the weights {name} in "
                f"its first forward passes; {REMEDY}"
            )

    def _open(self, spans: Sequence[_Span], module: nn.Module, args: Any) -> None:
        if self._weights is None:
            return
        here = _Open(module, self._top, [])
        self._running.append(here)
        for span in spans:
            first = self._top + (span.start - self._top) % self._grain
            self._top = first + sum(span.sizes)
            if self._top > len(self.scratch):  # it runs inside a layer that is not its ancestor
                self.scratch = _aligned(self._top, self.scratch.dtype, self.scratch.device)
            flat = self._weights.write(self.scratch[first : self._top], span.start)
            parts = flat.split(span.sizes)
            for parameter, part, shape in zip(span.parameters, parts, span.shapes, strict=True):
                kind = type(parameter)
                parameter.__class__ = nn.Parameter
                here.before.append(_Before(parameter, kind, parameter.data))
                parameter.data = part.view(shape)
                self._unseen.pop(id(parameter), None)

    def _close(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._weights is None:
            return
        here = self._running.pop()
        assert here.module is module
        self._top = here.first
        for parameter, kind, data in here.before:
            parameter.data = data
            parameter.__class__ = kind


def _aligned(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    scratch = torch.empty(size, dtype=dtype, device=device)
    assert scratch.data_ptr() % ALIGNMENT[device.type] == 0
    return scratch


def _spans(module: nn.Module, starts: dict[int, int]) -> list[_Span]:
    """The spans of the flat vector that a module itself owns.

    Args:
        starts: where each trainable parameter begins, by its id.
    """
    own = {id(p): p for p in module._parameters.values() if p is not None and id(p) in starts}
    spans: list[_Span] = []
    for key in sorted(own, key=starts.__getitem__):
        if not spans or spans[-1].start + sum(spans[-1].sizes) != starts[key]:
            spans.append(_Span(starts[key], [], [], []))
        spans[-1].parameters.append(own[key])
        spans[-1].sizes.append(own[key].numel())
        spans[-1].shapes.append(own[key].shape)
    return spans
