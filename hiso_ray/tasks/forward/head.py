"""The output head, computed only for scored tokens and for some rows of the vocabulary.

The (tokens, vocabulary) logits are the largest tensor of a forward pass, and almost all of it is
discarded. So the decoder alone computes the hidden states. The family's own code still applies the
rest (bias, scale, soft-capping): its forward pass runs once more with a decoder that only returns
those hidden states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hiso_ray.errors import UserError


class AnswerRows(nn.Module):
    """A linear layer restricted to some rows of its weight; its parameters keep their names.

    Args:
        rows: (answers,) int64.
    """

    def __init__(self, linear: nn.Linear, rows: Tensor) -> None:
        super().__init__()
        self.weight, self.bias, self._rows = linear.weight, linear.bias, rows

    def forward(self, hidden: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias[self._rows]
        return functional.linear(hidden, self.weight[self._rows], bias)


def keep_rows(module: Any, rows: Tensor) -> Callable[[], None]:
    """Makes a transformers model compute only these vocabulary rows; returns an undo function.

    With LoRA on the head, both its base layer and the adapters' second factor are restricted.

    Raises:
        UserError: the head is not a linear layer, or not in one place.
    """
    head = module.get_output_embeddings()
    adapters = getattr(head, "lora_B", None)
    if adapters is not None:
        places: list[tuple[nn.Module, str]] = [(head, "base_layer")]
        places += [(adapters, name) for name in adapters]
    else:
        names = [n for n, m in module.named_modules(remove_duplicate=False) if m is head]
        if len(names) != 1:
            raise UserError("its head stands in no one place")
        owner, _, name = names[0].rpartition(".")
        places = [(module.get_submodule(owner), name)]
    kept = [(owner, name, getattr(owner, name)) for owner, name in places]
    if not all(type(layer) is nn.Linear for *_, layer in kept):
        raise UserError("its head is no linear layer")
    for owner, name, layer in kept:
        setattr(owner, name, AnswerRows(layer, rows))

    def undo() -> None:
        for owner, name, layer in kept:
            setattr(owner, name, layer)

    return undo


def logits(module: Any, hidden: Tensor) -> Tensor:
    """(terms, rows) logits that the family's code computes from (terms, size) hidden states."""
    blank = torch.zeros(1, len(hidden), dtype=torch.int64, device=hidden.device)
    with _answering(module.get_decoder(), hidden[None]):
        return module(input_ids=blank, use_cache=False).logits[0]


@contextmanager
def _answering(decoder: Any, hidden: Tensor) -> Iterator[None]:
    output = _handed_on()(last_hidden_state=hidden)
    decoder.forward = lambda *_, **__: output
    try:
        yield
    finally:
        del decoder.forward


@lru_cache(maxsize=1)  # transformers never releases such a class
def _handed_on() -> Any:
    """Class of a decoder output with hidden states only: every other attribute is None."""
    from transformers.modeling_outputs import BaseModelOutputWithPast

    class HandedOn(BaseModelOutputWithPast):
        def __getattr__(self, name: str) -> None:
            if name.startswith("__"):
                raise AttributeError(name)

    return HandedOn
