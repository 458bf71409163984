"""The same forward passes in plain transformers and torch, as the baseline for hiso_ray's.
Imported by the benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hiso_ray.method.layout import Layout
from hiso_ray.tasks.contract import Prepared, views
from hiso_ray.tasks.pretrained.pretrained import skeleton
from hiso_ray.tasks.pretrained.trainable import restored

Head = Literal["full head", "logits_to_keep=1", "last position"]
"""Logits of all positions; of the last one, as transformers offers it; of the last one, whose
hidden states are made contiguous first, which transformers does not do."""
HEADS: tuple[Head, ...] = get_args(Head)


class Padded(NamedTuple):
    """A minibatch as a tokenizer pads it on the left.

    Attributes:
        inputs: (n, longest) ``input_ids`` and ``attention_mask``.
        labels: (n,) int64 classes.
        tokens: the number of tokens that are not padding.
    """

    inputs: dict[str, Tensor]
    labels: Tensor
    tokens: int


class Transformer:
    """An unmodified transformers model.

    Args:
        weights: (d,) in the dtype of the forward passes; the model's tensors are views into it.
    """

    def __init__(self, prepared: Prepared, weights: Tensor) -> None:
        self.module = skeleton(prepared.spec["model"]).eval().requires_grad_(False)
        self.device, self._arrays = weights.device, prepared.arrays
        named = dict(self.module.named_parameters())
        for name, view in views(weights, prepared.spec["layout"]).items():
            named.pop(name).data = view
        for name, parameter in named.items():
            frozen = restored(prepared.arrays[f"frozen/{name}"])
            parameter.data = frozen.to(self.device, weights.dtype)
        for buffer in self.module.buffers():
            buffer.data = buffer.to(self.device)
        self._answers = torch.tensor(prepared.spec["answers"], device=self.device)

    def batch(self, split: str, examples: np.ndarray) -> Padded:
        ids, offsets = self._arrays[f"{split}_prompt_ids"], self._arrays[f"{split}_prompt_offsets"]
        rows = [torch.from_numpy(ids[offsets[i] : offsets[i + 1]]).long() for i in examples]
        pad = nn.utils.rnn.pad_sequence
        mask = pad([torch.ones_like(row) for row in rows], True, 0, "left")
        inputs = {"input_ids": pad(rows, True, 0, "left"), "attention_mask": mask}
        labels = torch.from_numpy(self._arrays[f"{split}_labels"][examples])
        return Padded(
            {name: tensor.to(self.device) for name, tensor in inputs.items()},
            labels.to(self.device),
            int(mask.sum()),
        )

    @torch.inference_mode()
    def losses(self, batches: Sequence[Padded], head: Head) -> np.ndarray:
        """(batches,) float64 mean losses, one forward pass each."""
        means = [functional.cross_entropy(self._logits(b, head), b.labels) for b in batches]
        return torch.stack(means).double().cpu().numpy()

    def _logits(self, batch: Padded, head: Head) -> Tensor:
        """(n, classes) float32."""
        if head == "last position":
            hidden = self.module.get_decoder()(**batch.inputs, use_cache=False).last_hidden_state
            logits = self.module.get_output_embeddings()(hidden[:, -1].contiguous())
        else:
            keep = 1 if head == "logits_to_keep=1" else 0
            out = self.module(**batch.inputs, use_cache=False, logits_to_keep=keep)
            logits = out.logits[:, -1]
        return logits.index_select(-1, self._answers).float()

    def head_bytes(self, batch: Padded, head: Head) -> int:
        """Bytes of the output head beside its weights: the logits, or the copies of the weights
        that a half-precision product makes for each row if rows are not contiguous."""
        n, longest = batch.inputs["input_ids"].shape
        weight = self.module.get_output_embeddings().weight
        slow = self.device.type == "cpu" and weight.dtype != torch.float32
        if head == "logits_to_keep=1" and slow:
            return n * weight.numel() * weight.itemsize
        return n * (longest if head == "full head" else 1) * len(weight) * weight.itemsize

    def operations_per_token(self) -> int:
        """Floating-point operations of the decoder's linear layers on one token."""
        head = self.module.get_output_embeddings()
        layers: list[Any] = [
            m for m in self.module.modules() if m is not head and not isinstance(m, nn.Embedding)
        ]
        own = [p for m in layers for p in m.parameters(recurse=False) if p.dim() == 2]
        return 2 * sum(p.numel() for p in own)


class Perceptron:
    """Linear layers with ReLU in between, as plain torch modules with random weights.

    Args:
        layout: the weights and biases.
    """

    def __init__(self, layout: Layout, device: torch.device, dtype: torch.dtype) -> None:
        layers: list[nn.Module] = []
        for _, shape in layout:
            if len(shape) == 2:
                if layers:
                    layers.append(nn.ReLU())
                layers.append(nn.Linear(shape[1], shape[0]))
        self.network = nn.Sequential(*layers).requires_grad_(False).to(device, dtype)

    @torch.inference_mode()
    def losses(self, batches: Sequence[tuple[Tensor, Tensor]]) -> np.ndarray:
        """(batches,) float64 mean losses, one forward pass each.

        Args:
            batches: (n, features) in the network's dtype, and (n,) int64.
        """
        means = [functional.cross_entropy(self.network(x).float(), y) for x, y in batches]
        return torch.stack(means).double().cpu().numpy()
