"""Caches the hidden states below the lowest trained layer instead of recomputing them per probe.

Training never changes these states, so every probe, round and evaluation would recompute the same
ones. They are computed either per batch or per sequence. Per batch, all probes of the batch share
its states, and those of evaluation batches, which recur, are kept. Per sequence, states are kept
for every batch that contains the sequence. What is computed together depends only on the
configuration and the cohort, so bits depend neither on the budget nor on which process computes the
states or when. Both modes differ from a whole forward pass in the last bits, so the mode is part of
the run's identity.

No family's code is repeated here. The lower pass is the decoder's own, stopped where the lowest
trained layer would run; the upper pass is the decoder's own too, with the layers below returning
the kept states instead of running.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from hiso_ray.errors import UserError
from hiso_ray.tasks.forward import forwards, last_layer, packing
from hiso_ray.tasks.forward.forwards import Choice, Forward

CPU = torch.device("cpu")
PER_BATCH = "per_batch"


class FrozenLayers(NamedTuple):
    """The lowest layers, with nothing trained in or below them; part of the task's specification.

    Attributes:
        layers: full name of the list of decoder layers.
        depth: number of such layers; never all.
        size: of a token's hidden state [elements].
    """

    layers: str
    depth: int
    size: int


class KeptStates:
    """The states that the lowest trained layer reads.

    Args:
        module: its frozen weights must be in place; the trained ones are not read.
        device: of the module and of the kept states.
        per_batch: whether states are computed per batch, or per sequence.
        budget: for kept states [bytes]; states that do not fit are computed for each batch.
    """

    def __init__(
        self,
        module: Any,
        frozen: FrozenLayers,
        device: torch.device,
        per_batch: bool,
        budget: int,
    ) -> None:
        self._module, self._device, self._room = module, device, budget
        self._per_batch = per_batch
        layers = list(module.get_submodule(frozen.layers))
        self._below, self._lowest = layers[: frozen.depth], layers[frozen.depth]
        self._kept: dict[tuple[str, bytes], Tensor] = {}

    def states(self, split: str, examples: np.ndarray, rows: Sequence[np.ndarray]) -> list[Tensor]:
        """Parts, each (tokens, size) in the dtype of the forward passes, to be concatenated; their
        tokens are in the order of :func:`packing.packed`. Autograd may use them.

        Args:
            rows: the token ids of these examples.
        """
        if self._per_batch:
            return [self._states(split, examples, rows, keep=split == "eval")]
        order = np.argsort([len(row) for row in rows], kind="stable")
        return [self._states(split, examples[[i]], [rows[i]], keep=True) for i in order]

    def _states(
        self, split: str, examples: np.ndarray, rows: Sequence[np.ndarray], keep: bool
    ) -> Tensor:
        """(tokens, size) of examples that are computed together."""
        key = split, examples.tobytes()
        kept = self._kept.get(key)
        if kept is not None:
            return kept
        states = self._below_lowest(rows)
        size = states.untyped_storage().nbytes()
        if keep and size <= self._room:
            self._room -= size
            self._kept[key] = states
        return states

    @torch.inference_mode(False)  # a graph may keep them
    @torch.no_grad()
    def _below_lowest(self, rows: Sequence[np.ndarray]) -> Tensor:
        found: list[Tensor] = []

        def stop(_: Any, args: Any, kwargs: Any) -> None:
            found.append(last_layer.hidden_of(args, kwargs))
            raise _Reached

        hook = self._lowest.register_forward_pre_hook(stop, with_kwargs=True, prepend=True)
        try:
            inputs = packing.packed(rows, None, self._device)
            self._module.get_decoder()(**inputs, use_cache=False)
        except _Reached:
            return found[0][0]
        finally:
            hook.remove()
        raise AssertionError("the lowest trained layer did not run")

    @contextmanager
    def handed_on(self, states: Sequence[Tensor]) -> Iterator[None]:
        """Context in which the layers below do not run and return these states."""
        row = torch.cat(list(states))[None]
        for layer in self._below:
            layer.forward = lambda *_, **__: row
        try:
            yield
        finally:
            for layer in self._below:
                del layer.forward


class _Reached(Exception):
    """Ends the lower pass."""


def choose(
    module: Any,
    choice: Choice,
    prompts: Sequence[np.ndarray],
    rows: Tensor | None,
    trained: Collection[str],
    how: str,
) -> FrozenLayers:
    """The frozen layers, checked on a few prompts against whole forward passes.

    Args:
        module: with its weights, on a CPU; it is restored afterwards except for ``requires_grad``.
        choice: the form of its forward passes.
        prompts, rows: as in :func:`forwards.choose`.
        trained: names of the parameters that are trained, entirely or in part.
        how: ``task.frozen_layers``.

    Raises:
        UserError: no layer is frozen, or the model does not support it.
    """
    if choice.form not in ("scored", "packed"):
        raise _refusal(how, f"this model takes padded sequences only ({choice.why})")
    some = forwards.unlike(prompts)
    forward = Forward(module, choice, CPU, rows)
    try:
        inputs = forward.inputs(some, np.ones(len(some), np.int64))
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name in trained)
        frozen = _find(module, forward, inputs, how)
        with torch.inference_mode():
            why = _problem(forward, inputs, some, frozen, how)
    finally:
        forward.close()
    if why:
        raise _refusal(how, f"with the states handed on, this model fails ({why})")
    return frozen


def _find(module: nn.Module, forward: Forward, inputs: dict[str, Any], how: str) -> FrozenLayers:
    """Watches one forward pass: a layer's input requires a gradient exactly if something trained
    lies below it, whatever that is and wherever it is in the model."""
    name, layers = last_layer.decoder_layers(module)
    reads: list[tuple[nn.Module, bool, int]] = []

    def watch(layer: nn.Module, args: Any, kwargs: Any) -> None:
        hidden = last_layer.hidden_of(args, kwargs)
        reads.append((layer, hidden.requires_grad, hidden.shape[-1]))

    handles = [layer.register_forward_pre_hook(watch, with_kwargs=True) for layer in layers]
    try:
        with torch.enable_grad():
            forward.hidden(inputs)
    finally:
        for handle in handles:
            handle.remove()
    if not reads or [layer for layer, *_ in reads] != list(layers):
        raise _refusal(how, "this model is not one list of layers that run one after the other")
    depth = sum(not is_reached for _, is_reached, _ in reads) - 1
    if depth < 0:
        raise _refusal(
            how, "the embeddings are trained (tied ones with the head), so nothing is frozen"
        )
    if depth == 0:
        raise _refusal(how, "the lowest layer is trained, so none is frozen")
    return FrozenLayers(name, depth, reads[depth][2])


def _problem(
    forward: Forward,
    inputs: dict[str, Any],
    some: Sequence[np.ndarray],
    frozen: FrozenLayers,
    how: str,
) -> str:
    """What is wrong with kept states; empty if the logits match those of a whole pass."""
    wanted = forward.logits(forward.hidden(inputs)).float()
    kept = KeptStates(forward.module, frozen, CPU, how == PER_BATCH, budget=0)
    try:
        with kept.handed_on(kept.states("train", np.arange(len(some)), some)):
            found = forward.logits(forward.hidden(inputs)).float()
    except Exception as error:  # a family's code may fail in any way if layers do not run
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return forwards.difference(found, wanted, next(forward.module.parameters()).dtype)


def _refusal(how: str, why: str) -> UserError:
    return UserError(f"task.frozen_layers = {how}: {why}; use recompute")


def note(
    module: nn.Module,
    frozen: FrozenLayers,
    how: str,
    lengths: Sequence[np.ndarray],
    itemsize: int,
    budget_mb: float,
) -> str:
    """The note for the user.

    Args:
        how: ``task.frozen_layers``.
        lengths: (examples,) tokens of each example, of the training and of the evaluation split.
        itemsize: of an element of the states [bytes].
        budget_mb: memory for kept states per actor [MiB].
    """
    layers = len(last_layer.decoder_layers(module)[1])
    kept = lengths[1:] if how == PER_BATCH else lengths
    examples = sum(len(some) for some in kept)
    need = sum(int(some.sum()) for some in kept) * frozen.size * itemsize / 2**20
    which = "once for each batch, and evaluation's are" if how == PER_BATCH else "once, and"
    return (
        f"layers 0–{frozen.depth - 1} of {layers} are frozen: their states are computed {which} "
        f"kept, up to {budget_mb:,.4g} MiB per actor; all {examples:,} examples need "
        f"{need:,.4g} MiB"
    )
