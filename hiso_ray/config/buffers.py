"""Sizes of working buffers, shared by the code that allocates them and the memory estimate."""

# 256 KiB of float32 keeps a chunk and its operands in a core's cache; a GPU wants long kernels.
CHUNK = {"cpu": 1 << 16, "cuda": 1 << 22}  # elements of a direction made at once
STREAMS = 32  # directions read in parallel; each keeps one chunk in memory
LOGITS = 1 << 24  # at once: 64 MiB of float32
