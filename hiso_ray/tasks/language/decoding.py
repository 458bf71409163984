"""Greedy decoding: prompts are read in the model's form, answers are generated side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from hiso_ray.tasks.forward.forwards import Forward
from hiso_ray.tasks.forward.packing import packed, starts_of


def greedy(
    forward: Forward, prompts: Sequence[np.ndarray], most: int, stops: Sequence[int]
) -> list[list[int]]:
    """The tokens that the model generates after each prompt.

    Args:
        most: maximum number of new tokens.
        stops: tokens that end an answer.
    """
    from transformers import GenerationConfig

    if forward.form == "alone" and len(prompts) > 1:
        return [written for ids in prompts for written in greedy(forward, [ids], most, stops)]
    inputs = forward.padded(prompts)
    inputs.pop("position_ids", None)  # generate counts them from the mask
    given: dict[str, Any] = inputs
    if forward.is_packed and inputs["input_ids"].shape[1] > 1:
        given = inputs | {"past_key_values": _read(forward, prompts)}
    config = GenerationConfig(
        max_new_tokens=most,
        do_sample=False,
        num_beams=1,
        eos_token_id=list(stops) or None,
        pad_token_id=stops[0] if stops else 0,
    )
    with forward.side_by_side():
        written = forward.module.generate(**given, generation_config=config)
    return written[:, inputs["input_ids"].shape[1] :].tolist()


def _read(forward: Forward, prompts: Sequence[np.ndarray]) -> Any:
    """Reads the prompts end to end and returns the left-padded keys and values of all tokens but
    each prompt's last, from which generation continues."""
    from transformers import DynamicCache

    end_to_end = DynamicCache()
    forward.module.get_decoder()(
        **packed(prompts, None, forward.device), past_key_values=end_to_end, use_cache=True
    )
    read = np.array([len(ids) - 1 for ids in prompts])
    padding = read.max() - read[:, None]
    column = np.arange(read.max()) - padding
    real = column >= 0
    tokens = np.where(real, starts_of(read + 1)[:, None] + column, 0)
    index = torch.from_numpy(tokens).to(forward.device).flatten()
    side_by_side = DynamicCache()
    for number, layer in enumerate(end_to_end.layers):
        keys, values = (
            tensor[0].index_select(1, index).unflatten(1, real.shape).transpose(0, 1)
            for tensor in (layer.keys, layer.values)
        )
        side_by_side.update(keys, values, number)
    return side_by_side
