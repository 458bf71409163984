"""Shapes of public models, so that a run can be planned without a hub.

Each entry is what transformers needs to build the structure; the resulting counts of weights, in
the comments, match the published weights. A run always reads the model's own configuration.
"""

from __future__ import annotations

from typing import Any


def _opt(hidden: int, layers: int, heads: int, **more: Any) -> dict[str, Any]:
    shape = {
        "model_type": "opt",
        "hidden_size": hidden,
        "word_embed_proj_dim": hidden,
        "ffn_dim": 4 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "vocab_size": 50272,
        "max_position_embeddings": 2048,
    }
    return shape | more


def _grouped(
    kind: str, hidden: int, layers: int, heads: tuple[int, int], ffn: int, vocab: int, **more: Any
) -> dict[str, Any]:
    """A family with grouped-query attention; ``heads`` is (query heads, key-value heads)."""
    shape = {
        "model_type": kind,
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "num_hidden_layers": layers,
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
        "vocab_size": vocab,
        "tie_word_embeddings": True,
    }
    return shape | more


GEMMA_270M = _grouped("gemma3_text", 640, 18, (4, 1), 2048, 262144, head_dim=256)
KNOWN: dict[str, dict[str, Any]] = {
    "facebook/opt-125m": _opt(768, 12, 12),  # 125,239,296
    "facebook/opt-350m": _opt(
        1024, 24, 16, word_embed_proj_dim=512, do_layer_norm_before=False
    ),  # 331,196,416
    "facebook/opt-1.3b": _opt(2048, 24, 32),  # 1,315,758,080
    "facebook/opt-2.7b": _opt(2560, 32, 32),  # 2,651,596,800
    "facebook/opt-6.7b": _opt(4096, 32, 32),  # 6,658,473,984
    "facebook/opt-13b": _opt(5120, 40, 40),  # 12,853,473,280
    "HuggingFaceTB/SmolLM2-135M": _grouped(
        "llama", 576, 30, (9, 3), 1536, 49152, max_position_embeddings=8192
    ),  # 134,515,008
    "HuggingFaceTB/SmolLM2-360M": _grouped(
        "llama", 960, 32, (15, 5), 2560, 49152, max_position_embeddings=8192
    ),  # 361,821,120
    "HuggingFaceTB/SmolLM2-1.7B": _grouped(
        "llama", 2048, 24, (32, 32), 8192, 49152, max_position_embeddings=8192
    ),  # 1,711,376,384
    "HuggingFaceTB/SmolLM3-3B": _grouped(
        "smollm3", 2048, 36, (16, 4), 11008, 128256
    ),  # 3,075,098,624
    "meta-llama/Llama-3.2-1B": _grouped(
        "llama", 2048, 16, (32, 8), 8192, 128256, head_dim=64, max_position_embeddings=131072
    ),  # 1,235,814,400
    "meta-llama/Llama-3.2-3B": _grouped(
        "llama", 3072, 28, (24, 8), 8192, 128256, head_dim=128, max_position_embeddings=131072
    ),  # 3,212,749,824
    "Qwen/Qwen2.5-0.5B": _grouped("qwen2", 896, 24, (14, 2), 4864, 151936),  # 494,032,768
    "Qwen/Qwen2.5-1.5B": _grouped("qwen2", 1536, 28, (12, 2), 8960, 151936),  # 1,543,714,304
    "Qwen/Qwen3-0.6B": _grouped(
        "qwen3", 1024, 28, (16, 8), 3072, 151936, head_dim=128
    ),  # 596,049,920
    "Qwen/Qwen3-1.7B": _grouped(
        "qwen3", 2048, 28, (16, 8), 6144, 151936, head_dim=128
    ),  # 1,720,574,976
    "google/gemma-3-270m": GEMMA_270M,  # 268,098,176
    "gemma-3-270m-q4_k_m": GEMMA_270M,
    "google/gemma-3-1b-pt": _grouped(
        "gemma3_text", 1152, 26, (4, 1), 6912, 262144, head_dim=256
    ),  # 999,885,952
    "microsoft/phi-1_5": _grouped(
        "phi", 2048, 24, (32, 32), 8192, 51200, tie_word_embeddings=False
    ),  # 1,418,270,720
    "microsoft/phi-2": _grouped(
        "phi", 2560, 32, (32, 32), 10240, 51200, tie_word_embeddings=False
    ),  # 2,779,683,840
    "microsoft/Phi-4-mini-instruct": _grouped(
        "phi3", 3072, 32, (24, 8), 8192, 200064, max_position_embeddings=131072
    ),  # 3,836,021,760
}
