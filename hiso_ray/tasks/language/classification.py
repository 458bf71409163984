"""Prompt classification: the model reads "<text> It was" and is scored on the next token.

Cross-entropy and accuracy over the classes' answer tokens (" bad" / " good") at that one position.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiso_ray.config import TaskConfig
from hiso_ray.errors import UserError
from hiso_ray.tasks.contract import Prepared
from hiso_ray.tasks.flat.batch import Batch
from hiso_ray.tasks.language.causal import LanguageTask
from hiso_ray.tasks.text.benchmark_row import Classification
from hiso_ray.tasks.text.tokens import continuations


def answer_tokens(benchmark: Classification, tokenizer: Any, model: str) -> list[int]:
    """The token of each class's answer.

    Raises:
        UserError: no set of answers consists of single, distinct tokens (names the sets).
    """
    tried = []
    for answers in benchmark.verbalizers:
        ids = continuations(answers, tokenizer)
        firsts = [i[0] for i in ids if len(i) == 1 and i[0] != tokenizer.unk_token_id]
        if len(set(firsts)) == len(answers):
            return firsts
        tried.append(", ".join(f"{a!r} → {i}" for a, i in zip(answers, ids, strict=True)))
    raise UserError(
        f"task.model = {model}: its tokenizer has no single, distinct token for each answer: "
        + "; ".join(tried)
        + ". The space before a word is part of its token; task.name prompts takes other answers"
    )


class ClassificationTask(LanguageTask):
    """Scored on the one token after the prompt."""

    def __init__(self, config: TaskConfig, prepared: Prepared, device: torch.device) -> None:
        super().__init__(config, prepared, device, prepared.spec["answers"])

    def make_batch(self, split: str, clients: Sequence[np.ndarray]) -> Batch:
        examples = np.concatenate(clients)
        labels = torch.from_numpy(self._arrays[f"{split}_labels"][examples]).to(self.device)
        prompts = self.rows(f"{split}_prompt", examples)
        scored = np.ones(len(prompts), np.int64)
        inputs = self.inputs(split, examples, prompts, scored)
        return Batch(inputs, labels, tuple(map(len, clients)))

    def logits(self, inputs: dict[str, Any]) -> Tensor:
        return self.forward.logits(self.hidden(inputs))
