"""Tiny random models of real configuration classes, with weights large enough that what a token
sees changes what comes out; and prompts of every length."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

VOCABULARY, LONGEST, WINDOW = 400, 30, 8
SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64,
    "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": None, "tie_word_embeddings": False,
}  # fmt: skip
TIED = {"tie_word_embeddings": True}
OPT = SMALL | {"ffn_dim": 32, "word_embed_proj_dim": 8, "pad_token_id": 0} | TIED
GEMMA = SMALL | {"head_dim": 8, "sliding_window": WINDOW, "query_pre_attn_scalar": 8} | TIED
LAYERS = ["sliding_attention", "full_attention"]
GPT2 = {"vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}

# name -> (model type, its configuration); sequences go end to end through all of these
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "opt": ("opt", OPT),
    "opt, norms after": ("opt", OPT | {"do_layer_norm_before": False}),
    "llama": ("llama", SMALL | TIED),
    "llama, untied": ("llama", SMALL),
    "qwen2": ("qwen2", SMALL | TIED),
    "qwen3": ("qwen3", SMALL | {"head_dim": 8}),
    "gemma3, full last": ("gemma3_text", GEMMA | {"layer_types": LAYERS}),
    "gemma3, window last": (
        "gemma3_text",
        GEMMA | {"layer_types": LAYERS[::-1], "final_logit_softcapping": 3.0},
    ),
    "gemma2": (
        "gemma2",
        GEMMA | {"attn_logit_softcapping": 1.0, "final_logit_softcapping": 1.0},
    ),
    "smollm3": ("smollm3", SMALL | TIED),
    "phi": ("phi", SMALL | {"num_key_value_heads": 2}),  # a bias on the head
    "phi3": ("phi3", SMALL),
    "mistral": ("mistral", SMALL | {"sliding_window": WINDOW}),
    "gpt_neox": ("gpt_neox", SMALL),
    "gpt_neox, one by one": ("gpt_neox", SMALL | {"use_parallel_residual": False}),
    "gpt2": ("gpt2", GPT2),
    "cohere": ("cohere", SMALL | {"logit_scale": 0.3}),
    "granite": (
        "granite",
        SMALL | {"logits_scaling": 4.0, "attention_multiplier": 0.4, "embedding_multiplier": 2.0},
    ),
    "olmo2": ("olmo2", SMALL),  # norms after attention alone
}
# mixed by something else as well, or an attention that cannot be exchanged
PADDED: dict[str, tuple[str, dict[str, Any]]] = {
    "lfm2": ("lfm2", SMALL | {"layer_types": ["conv", "full_attention"]}),
    "bamba": (
        "bamba",
        SMALL
        | {"mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 4, "mamba_n_groups": 1}
        | {"attn_layer_indices": [1]},
    ),
    "mamba": (
        "mamba",
        {"vocab_size": VOCABULARY, "hidden_size": 16, "state_size": 4, "num_hidden_layers": 2},
    ),
    "qwen3_next": (
        "qwen3_next",
        SMALL
        | {"head_dim": 8, "linear_num_value_heads": 2, "linear_num_key_heads": 2}
        | {"linear_key_head_dim": 8, "linear_value_head_dim": 8, "num_experts": 0}
        | {"layer_types": ["linear_attention", "full_attention"]},
    ),
    "bloom": (
        "bloom",
        {"vocab_size": VOCABULARY, "hidden_size": 16, "n_layer": 2, "n_head": 2},
    ),
}


def random_model(kind: str, config: dict[str, Any]) -> Any:
    """In evaluation mode; every vector, norms and biases too, is off its usual value."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **config))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1:
                    parameter += 0.1 * torch.randn_like(parameter)
                else:
                    parameter *= 6
    return model.eval().requires_grad_(False)


def save(name: str, folder: Path, tokenizer: Path, **more: Any) -> Path:
    kind, config = (MODELS | PADDED)[name]
    random_model(kind, config | more).save_pretrained(folder)
    for file in tokenizer.glob("tokenizer*"):
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def rows(lengths: Sequence[int], seed: int = 0) -> list[np.ndarray]:
    """Token ids, none of them special."""
    rng = np.random.default_rng(seed)
    return [rng.integers(3, VOCABULARY, length).astype(np.int32) for length in lengths]


def shuffled_lengths(longest: int = LONGEST) -> list[int]:
    """Every length from 1 to the longest, some twice, in no order."""
    lengths = [*range(1, longest + 1), 1, 2, 2, longest]
    return [lengths[i] for i in np.random.default_rng(1).permutation(len(lengths))]


def give(prepared: Any, name: str, examples: Sequence[np.ndarray]) -> None:
    """A task's prompts or answers: these instead of its own."""
    prepared.arrays[f"{name}_ids"] = np.concatenate(examples)
    prepared.arrays[f"{name}_offsets"] = np.cumsum([0, *map(len, examples)])


class Largest(TorchDispatchMode):
    """The most elements of any tensor that was made: views, and what is written in place, are none.

    Attributes:
        shape: of that tensor.
    """

    def __init__(self) -> None:
        super().__init__()
        self.elements, self.shape = 0, torch.Size()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {_place(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        for leaf in tree_leaves(out):
            made = isinstance(leaf, Tensor) and _place(leaf) not in given
            if made and leaf.numel() > self.elements:
                self.elements, self.shape = leaf.numel(), leaf.shape
        return out


def _place(tensor: Tensor) -> int:
    try:
        return tensor.untyped_storage().data_ptr()
    except RuntimeError:  # a zero of forward mode, which has no memory
        return id(tensor)
