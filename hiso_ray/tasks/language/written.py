"""Tasks that are trained on the tokens of an answer.

A sequence is prompt + answer. The loss is the mean cross-entropy over the answer tokens of the
minibatch; prompt tokens have no loss and their logits are not computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from hiso_ray.config import TaskConfig
from hiso_ray.config.buffers import LOGITS
from hiso_ray.tasks.contract import Prepared
from hiso_ray.tasks.flat.batch import Batch, cross_entropy
from hiso_ray.tasks.language.causal import LanguageTask


class _Head(nn.Module):
    """Computes a task's losses from hidden states, as a module's forward."""

    def __init__(self, task: WrittenTask) -> None:
        super().__init__()
        self.module, self._logits = task.module, task.forward.logits

    def forward(self, hidden: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(self._logits(hidden), labels)

    def alike(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The same function, fixed to the weights that the module has now."""
        weights: dict[str, Tensor] = dict(self.named_parameters())
        return lambda hidden, labels: functional_call(self, weights, (hidden, labels))


class WrittenTask(LanguageTask):
    """Losses of the answers' tokens; how answers are scored is left to others."""

    def __init__(self, config: TaskConfig, prepared: Prepared, device: torch.device) -> None:
        super().__init__(config, prepared, device)
        model: Any = self.module
        self._vocabulary = model.config.get_text_config().vocab_size

    def make_batch(self, split: str, clients: Sequence[np.ndarray]) -> Batch:
        examples = np.concatenate(clients)
        prompts, wanted = (self.rows(f"{split}_{part}", examples) for part in ("prompt", "answer"))
        # The last token of an answer is a label but never an input.
        read = [np.concatenate([p, a[:-1]]) for p, a in zip(prompts, wanted, strict=True)]
        lengths = np.array([len(answer) for answer in wanted])
        labels = torch.from_numpy(np.concatenate(wanted).astype(np.int64)).to(self.device)
        ends = np.cumsum([len(own) for own in clients])[:-1]
        sizes = tuple(int(own.sum()) for own in np.split(lengths, ends))
        return Batch(self.inputs(split, examples, read, lengths), labels, sizes)

    def logits(self, inputs: dict[str, Any]) -> Tensor:
        """(answer tokens, vocabulary), all at once."""
        return self.forward.logits(self.hidden(inputs))

    def terms(self, batch: Batch) -> Tensor:
        """The same losses with at most ``LOGITS`` logits in memory at once, also in backward
        passes, which recompute them."""
        hidden = self.hidden(batch.inputs)
        some = max(1, LOGITS // self._vocabulary)
        parts = zip(hidden.split(some), batch.labels.split(some), strict=True)
        of: Callable[[Tensor, Tensor], Tensor] = _Head(self)
        if hidden.requires_grad:
            of = partial(checkpoint, _Head(self).alike(), use_reentrant=False)
        return torch.cat([of(states, labels) for states, labels in parts])
