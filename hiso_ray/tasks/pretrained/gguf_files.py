"""Converts GGUF files to ordinary model folders, once.

GGUF is llama.cpp's format: one file with the configuration, the tokenizer and weights that are
mostly quantised. transformers reads many of its architectures, but slowly: a large vocabulary takes
longer than the weights, each time. So the model is saved once in float32, under the file's SHA-256,
and is an ordinary model from then on. The tokenizer is saved too: transformers may replace its text
splitting by the family's own when it is read back, and so training and an exported folder split
alike.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

from hiso_ray import progress
from hiso_ray.tasks.pretrained.cache import cache
from hiso_ray.tasks.pretrained.unfit import Unfit, check_complete, check_memory

ABOUT = "about.txt"
FLOAT32 = 4  # bytes


def folder_of(file: Path) -> Path:
    """The folder with a GGUF file's model and tokenizer, created on first use.

    Raises:
        Unfit: not a GGUF file, no tokenizer inside, an architecture that transformers does not
            read, more than the machine's memory, or no package ``gguf``.
        OSError: the folder cannot be written.
    """
    folder = cache() / "models" / f"{file.stem}-{_sha256(file)[:16]}"
    if not folder.exists():
        about = _about(file)
        fresh = folder.with_name(f"{folder.name}.{os.getpid()}.new")
        fresh.mkdir(parents=True)
        try:
            with progress.step(f"converting {file.name}, once"):
                _convert(file, fresh)
            (fresh / ABOUT).write_text(about, encoding="utf-8")
            _put(fresh, folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return folder


def about(folder: Path) -> str:
    """A line about the weights that were converted to float32."""
    return (folder / ABOUT).read_text(encoding="utf-8")


def _sha256(file: Path) -> str:
    sha = hashlib.sha256()
    with open(file, "rb") as content:
        block = content.read(1 << 20)
        if block[:4] != b"GGUF":
            raise Unfit(f"{file.name} is not a GGUF file: it does not begin with GGUF")
        while block:
            sha.update(block)
            block = content.read(1 << 20)
    return sha.hexdigest()


def _about(file: Path) -> str:
    try:
        from gguf import GGUFReader, LlamaFileType
    except ImportError as error:
        raise Unfit("reading a GGUF needs a package: pip install 'hiso-ray[gguf]'") from error
    try:
        reader = GGUFReader(file)
    except (ValueError, IndexError, KeyError) as error:
        why = f"{file.name} is torn or not of a version that can be read ({error})"
        raise Unfit(why) from error
    if reader.get_field("tokenizer.ggml.tokens") is None:
        raise Unfit(
            f"{file.name} has no tokenizer inside; take one that has, or name a folder with the "
            "model and its tokenizer as transformers saves them"
        )
    weights = sum(int(t.n_elements) for t in reader.tensors)
    check_memory(2 * FLOAT32 * weights)
    bits = f"{8 * sum(int(t.n_bytes) for t in reader.tensors) / weights:.2f} bits a weight"
    kind = reader.get_field("general.file_type")
    named = "" if kind is None else LlamaFileType(kind.contents()).name.removeprefix("MOSTLY_")
    return (
        f"x_0 is {file.name} ({', '.join(filter(None, [named, bits]))}) with its weights made "
        "float32 again: near the published model, not equal to it; what is trained stays float32, "
        "and exports are ordinary folders"
    )


def _convert(file: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source: dict[str, Any] = {"gguf_file": file.name}
    try:
        tokenizer = AutoTokenizer.from_pretrained(file.parent, **source)
        model, found = AutoModelForCausalLM.from_pretrained(
            file.parent, dtype=torch.float32, output_loading_info=True, **source, **_dequantised()
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise Unfit(f"transformers cannot read this GGUF file ({reason})") from error
    check_complete(found)
    # The weights are dequantised; without this they would be saved as quantised.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer, model.is_quantized = None, False
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _dequantised() -> dict[str, Any]:
    """Options that dequantise the weights even if kernels for quantised weights are installed."""
    try:
        from transformers import GgufConfig
    except ImportError:  # older versions of transformers always dequantise
        return {}
    return {"quantization_config": GgufConfig(dequantize=True)}


def _put(fresh: Path, folder: Path) -> None:
    try:
        fresh.rename(folder)
    except OSError:
        if not folder.exists():  # otherwise another run created it first
            raise
