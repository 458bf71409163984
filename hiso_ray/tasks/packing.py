"""Sequences of any lengths end to end in one row, each attending to itself alone: no padding.

Everything a transformer does to one token at a time does not care where the token lies. Attention
does, so it gets a function of its own through transformers' ``AttentionInterface``, told by a
keyword, which the families hand on to it, where each sequence begins. Positions are counted per
sequence by ``position_ids``, which alone would keep nobody apart.

On CPUs, sequences of the same length are one call of torch's attention, without a mask. On GPUs a
variable-length kernel takes all of them where torch brings one for the dtype; otherwise they are
padded on the right inside the attention, where causality hides the padding from every real token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

NAME = "hiso_ray_packed"  # of the attention function, in a model's configuration


class Run(NamedTuple):
    """Neighbours of the same length.

    Attributes:
        start: token at which the first one begins.
        sequences: how many.
        length: of each.
    """

    start: int
    sequences: int
    length: int


@dataclass(frozen=True, eq=False)
class Packing:
    """Where sequences lie in a row, shortest first.

    Attributes:
        lengths: of the sequences as they lie [tokens], ascending.
        device: where the row is.
        scored: (terms,) int64 the tokens whose outputs are looked at, if that is known.
        ends: these are the last one of each sequence.
        last_only: only each sequence's last token asks; the others get zeros.
    """

    lengths: tuple[int, ...]
    device: torch.device
    scored: Tensor | None = None
    ends: bool = False
    last_only: bool = False

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        values, counts = np.unique(self.lengths, return_counts=True)
        starts = np.concatenate([[0], np.cumsum(values * counts)])
        return tuple(Run(*map(int, run)) for run in zip(starts, counts, values, strict=False))

    @cached_property
    @torch.inference_mode(False)  # a graph may keep it
    def starts(self) -> Tensor:
        """(sequences + 1,) int32 token at which each begins, and the end."""
        found = np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int32)
        return torch.from_numpy(found).to(self.device)

    @cached_property
    @torch.inference_mode(False)  # likewise
    def places(self) -> tuple[Tensor, Tensor]:
        """Padded on the right: the token at each of (sequences, longest) places, and the place of
        each token; what stands in the padding is the sequence's last token."""
        lengths, starts = np.array(self.lengths), np.cumsum((0, *self.lengths[:-1]))
        longest = int(lengths[-1])
        column = np.minimum(np.arange(longest), lengths[:, None] - 1)
        real = np.arange(longest) < lengths[:, None]
        tokens, places = starts[:, None] + column, np.flatnonzero(real)
        return torch.from_numpy(tokens).to(self.device), torch.from_numpy(places).to(self.device)

    def asked_by_last(self) -> Packing:
        return replace(self, last_only=True)


def packed(
    rows: Sequence[np.ndarray], scored: np.ndarray | None, device: torch.device
) -> dict[str, Any]:
    """Token ids of any lengths as a module's inputs.

    Args:
        scored: (sequences,) how many of its last tokens are scored, of each of ``rows``; None
            where that is not asked.

    Returns:
        ``input_ids`` and ``position_ids``, both (1, tokens) int64, and ``packing``, whose scored
        tokens are in the order of ``rows``.
    """
    lengths = np.array([len(row) for row in rows])
    order = np.argsort(lengths, kind="stable")
    starts = starts_of(lengths)
    ids = np.concatenate([rows[i] for i in order]).astype(np.int64)
    positions = np.arange(len(ids)) - np.repeat(starts[order], lengths[order])
    packing = Packing(tuple(lengths[order].tolist()), device)
    if scored is not None:
        tokens = torch.from_numpy(counted(starts + lengths - scored, scored)).to(device)
        packing = replace(packing, scored=tokens, ends=bool((scored == 1).all()))
    return {
        "input_ids": torch.from_numpy(ids)[None].to(device),
        "position_ids": torch.from_numpy(positions)[None].to(device),
        "packing": packing,
    }


def starts_of(lengths: np.ndarray) -> np.ndarray:
    """(sequences,) the token at which each begins in a row that has the shortest first."""
    order = np.argsort(lengths, kind="stable")
    starts = np.empty_like(lengths)
    starts[order] = np.cumsum(lengths[order]) - lengths[order]
    return starts


def counted(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """``counts[i]`` whole numbers from ``starts[i]`` on, one range after the other."""
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(counts.sum())


def install(module: Any) -> None:
    """Has a transformers model attend within sequences; its inputs must then bring ``packing``.

    Raises:
        ValueError: its attention cannot be exchanged.
    """
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, lambda *_, **__: None)
    if not getattr(module, "_supports_attention_backend", False):
        raise ValueError(f"{type(module).__name__} has an attention of its own")
    module.set_attn_implementation(NAME)


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packing: Packing,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each sequence, as transformers calls it.

    Args:
        query: (1, heads, tokens, size); key and value may have fewer heads.
        sliding_window: how many tokens one looks back at, itself included.
        softcap: the scores s become softcap · tanh(s / softcap).

    Returns:
        (1, tokens, heads, size), and no weights.
    """
    attention: Callable[..., Tensor]
    if softcap is not None:
        attention = _Softcapped(softcap)
    elif packing.device.type == "cpu" or packing.last_only:
        attention = functional.scaled_dot_product_attention
    elif _has_kernel(query):
        return _kernel(query, key, value, packing, scaling, sliding_window), None
    else:
        return _padded_inside(query, key, value, packing, scaling, sliding_window), None
    options: dict[str, Any] = {"scale": scaling, "enable_gqa": key.shape[1] != query.shape[1]}
    found = []
    for start, sequences, length in packing.runs:
        window = _cut(sliding_window, length)
        here = slice(start, start + sequences * length)
        q, k, v = (
            tensor[0, :, here].unflatten(1, (sequences, length)).transpose(0, 1)
            for tensor in (query, key, value)
        )  # (sequences, heads, length, size)
        if packing.last_only:
            seen = slice(-window, None) if window else slice(None)
            out = attention(q[:, :, -1:], k[:, :, seen], v[:, :, seen], **options)
            out = functional.pad(out, (0, 0, length - 1, 0))
        else:
            mask = _window_mask(length, window, query.device) if window else None
            out = attention(q, k, v, attn_mask=mask, is_causal=mask is None, **options)
        found.append(out.transpose(1, 2).flatten(0, 1))
    return torch.cat(found)[None], None


def _cut(window: int | None, length: int) -> int | None:
    """A window that hides something of a sequence."""
    return window if window is not None and window < length else None


@lru_cache(maxsize=256)
@torch.inference_mode(False)  # a graph may keep it
def _window_mask(length: int, window: int, device: torch.device) -> Tensor:
    """(length, length), true where a token (row) sees another (column)."""
    back = torch.arange(length, device=device)
    back = back[:, None] - back
    return (back >= 0) & (back < window)


class _Softcapped:
    """Attention with capped scores, which no kernel of torch's has."""

    def __init__(self, cap: float) -> None:
        self.cap = cap

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        groups = query.shape[1] // key.shape[1]
        key, value = (tensor.repeat_interleave(groups, 1) for tensor in (key, value))
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        scores = self.cap * torch.tanh(query @ key.transpose(-1, -2) * scale / self.cap)
        if is_causal:
            attn_mask = _window_mask(query.shape[2], query.shape[2], query.device)
        if attn_mask is not None:
            scores = scores.masked_fill(~attn_mask, -torch.inf)
        return scores.softmax(-1, dtype=torch.float32).to(value.dtype) @ value


def _padded_inside(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    packing: Packing,
    scaling: float | None,
    sliding_window: int | None,
) -> Tensor:
    tokens, places = packing.places
    n, longest = tokens.shape
    q, k, v = (
        tensor[0].index_select(1, tokens.flatten()).unflatten(1, (n, longest)).transpose(0, 1)
        for tensor in (query, key, value)
    )
    # The kernels that take float32, or a mask, want as many heads of keys as of queries.
    k, v = (tensor.repeat_interleave(q.shape[1] // k.shape[1], 1) for tensor in (k, v))
    window = _cut(sliding_window, longest)
    mask = _window_mask(longest, window, query.device) if window else None
    out = functional.scaled_dot_product_attention(
        q, k, v, mask, is_causal=mask is None, scale=scaling
    )
    return out.transpose(1, 2).flatten(0, 1).index_select(0, places)[None]


def _has_kernel(query: Tensor) -> bool:
    """Whether torch has an attention for sequences of any lengths here; it has no forward mode and
    no second derivative, and its gradient adds in any order."""
    half = query.dtype in (torch.float16, torch.bfloat16)
    return half and query.is_cuda and not torch.is_grad_enabled() and _varlen() is not None


@lru_cache(maxsize=1)
def _varlen() -> Any:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn


def _kernel(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    packing: Packing,
    scaling: float | None,
    sliding_window: int | None,
) -> Tensor:
    longest = packing.lengths[-1]
    window = _cut(sliding_window, longest)
    q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    out = _varlen()(
        q,
        k,
        v,
        packing.starts,
        packing.starts,
        longest,
        longest,
        scale=scaling,
        window_size=(window - 1 if window else -1, 0),
        enable_gqa=key.shape[1] != query.shape[1],
    )
    return out[None]
