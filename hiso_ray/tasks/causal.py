"""A Hugging Face causal language model over one flat weight vector: batches, binding, export.

Sequences are padded on the left, so the position that is asked about is the last one of every row,
and each batch is trimmed to its longest sequence.
"""

from __future__ import annotations

import inspect
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiso_ray.config import LoraConfig, TaskConfig
from hiso_ray.tasks import pretrained
from hiso_ray.tasks.contract import Layout, Prepared
from hiso_ray.tasks.module import Mask, ModuleTask
from hiso_ray.tasks.trainable import add_lora, peft_config

ALIGNMENT = 64  # bytes, of torch's own storage on CPUs


class LanguageTask(ModuleTask):
    """The language model and both splits on one device; ``Task`` says what the methods do."""

    def __init__(self, config: TaskConfig, prepared: Prepared, device: torch.device) -> None:
        self.config, self.device = config, device
        self._arrays, self._spec = prepared.arrays, prepared.spec
        module = pretrained.skeleton(prepared.spec["model"])
        if "lora" in prepared.spec:
            add_lora(module, LoraConfig(**prepared.spec["lora"]))
        dtype = getattr(torch, config.dtype)
        tensors = {name for name, _ in prepared.spec["dense"]}
        tensors |= {n.removeprefix("frozen/") for n in prepared.arrays if n.startswith("frozen/")}
        assert tensors == {name for name, _ in module.named_parameters()}
        for name, parameter in module.named_parameters():
            if f"frozen/{name}" in prepared.arrays:
                parameter.data = _shared(prepared.arrays[f"frozen/{name}"], dtype, device)
        for buffer in module.buffers():
            buffer.data = buffer.to(device)
        layout = _layout(prepared.spec["layout"])
        mask = None
        if "mask/index" in prepared.arrays:
            mask = Mask(
                prepared.arrays["mask/index"],
                prepared.arrays["mask/base"],
                _layout(prepared.spec["dense"]),
            )
        examples = len(prepared.arrays["eval_labels"])
        super().__init__(module, layout, examples, config.eval_batch_size, mask)
        self._takes_positions = "position_ids" in inspect.signature(module.forward).parameters

    def padded(self, rows: list[np.ndarray]) -> dict[str, Tensor]:
        """Token ids of any lengths as the module's inputs, padded on the left."""
        longest = max(len(row) for row in rows)
        ids = np.zeros((len(rows), longest), np.int64)
        real = np.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, longest - len(row) :] = row
            real[i, longest - len(row) :] = 1
        inputs = {
            "input_ids": torch.from_numpy(ids).to(self.device),
            "attention_mask": torch.from_numpy(real).to(self.device),
        }
        if self._takes_positions:  # by default some models count the padding as well
            positions = np.maximum(real.cumsum(1) - 1, 0)
            inputs["position_ids"] = torch.from_numpy(positions).to(self.device)
        return inputs

    def rows(self, name: str, examples: np.ndarray) -> list[np.ndarray]:
        """The token ids of some examples, from the arrays ``NAME_ids`` and ``NAME_offsets``."""
        ids, offsets = self._arrays[f"{name}_ids"], self._arrays[f"{name}_offsets"]
        return [ids[offsets[i] : offsets[i + 1]] for i in examples]

    @torch.inference_mode()
    def export(self, weights: Tensor, folder: Path) -> None:
        """A Hugging Face folder: the original model with these weights, or with LoRA its adapter,
        and the tokenizer."""
        model, tokenizer = pretrained.load(self.config.model)
        self._bind(weights.cpu())
        named = dict(self.module.named_parameters())
        tensors = {name: named[name].clone() for name, _ in self._tensors}
        self._bound_to = None
        if "lora" in self._spec:
            from peft import get_peft_model

            lora = LoraConfig(**self._spec["lora"])
            targets = lora.target_modules.split(",")
            with torch.random.fork_rng(devices=[]):
                model = get_peft_model(model, peft_config(lora, targets))
            tensors = {f"base_model.model.{name}": value for name, value in tensors.items()}
        for name, parameter in model.named_parameters():
            if name in tensors:
                parameter.data = tensors[name]
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _layout(spec: Any) -> Layout:
    return tuple((name, tuple(shape)) for name, shape in spec)


def _shared(array: np.ndarray, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The array as a tensor, the same memory where nothing has to be converted.

    Frozen weights are never written to, so every process of a node may read the same ones. Matrix
    products change bits with the alignment of what they read, and the object store aligns small
    arrays to 8 bytes only: what does not lie as torch would lay it is copied.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable")
        tensor = torch.from_numpy(array).to(device, dtype)
    return tensor.clone() if tensor.data_ptr() % ALIGNMENT else tensor
