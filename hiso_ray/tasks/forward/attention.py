"""Attention within each sequence of a packed row, through transformers' ``AttentionInterface``.

Model families pass the keyword ``packing`` on to it, which says where each sequence begins. On
CPUs, sequences of the same length are one call of torch's attention, without a mask. On GPUs a
variable-length kernel takes all of them if torch has one for the dtype; otherwise they are padded
on the right inside the attention, where causality hides the padding from every real token.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from hiso_ray.errors import UserError
from hiso_ray.tasks.forward.packing import Packing

NAME = "hiso_ray_packed"  # of the attention function, in a model's configuration


def install(module: Any) -> None:
    """Makes a transformers model attend within sequences; its inputs must then have ``packing``.

    Raises:
        UserError: its attention cannot be replaced.
    """
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, lambda *_, **__: None)
    if not getattr(module, "_supports_attention_backend", False):
        raise UserError(f"{type(module).__name__} has an attention of its own")
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
        sliding_window: how many tokens each token attends to, itself included.
        softcap: the scores s become softcap · tanh(s / softcap).

    Returns:
        (1, tokens, heads, size), and None for the attention weights.
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
    """The window if it is shorter than the sequence, else None."""
    return window if window is not None and window < length else None


def _window_mask(length: int, window: int, device: torch.device) -> Tensor:
    """(length, length), true where a token (row) attends to another (column)."""
    power = 1 << (length - 1).bit_length()  # so that few masks are cached
    return _whole_window_mask(power, window, device)[:length, :length]


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # a graph may keep it
def _whole_window_mask(length: int, window: int, device: torch.device) -> Tensor:
    token = torch.arange(length, device=device)
    back = token[:, None] - token
    return (back >= 0) & (back < window)


class _Softcapped:
    """Attention with soft-capped scores, which no torch kernel supports."""

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
            length = query.shape[2]
            attn_mask = _window_mask(length, 1 << 30, query.device)
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
    # Kernels for float32, or with a mask, need as many key heads as query heads.
    k, v = (tensor.repeat_interleave(q.shape[1] // k.shape[1], 1) for tensor in (k, v))
    window = _cut(sliding_window, longest)
    mask = _window_mask(longest, window, query.device) if window else None
    out = functional.scaled_dot_product_attention(
        q, k, v, mask, is_causal=mask is None, scale=scaling
    )
    return out.transpose(1, 2).flatten(0, 1).index_select(0, places)[None]


def _has_kernel(query: Tensor) -> bool:
    """Whether torch has a variable-length attention kernel for this query.

    Used only in inference mode: the kernel has no second derivative, its gradient sums in no fixed
    order, and forward mode would silently lose the tangent.
    """
    if not (query.is_cuda and torch.is_inference_mode_enabled()):
        return False
    half, size = query.dtype in (torch.float16, torch.bfloat16), query.shape[-1]
    recent = torch.cuda.get_device_capability(query.device) >= (8, 0)
    return half and recent and size % 8 == 0 and size <= 256 and _varlen() is not None


@lru_cache(maxsize=1)
def _varlen() -> Any:
    """torch's variable-length attention; None if missing or without an argument used here."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    takes = inspect.signature(varlen_attn).parameters
    return varlen_attn if {"scale", "window_size", "enable_gqa"} <= set(takes) else None


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
