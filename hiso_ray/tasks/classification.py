"""Prompt classification: the model reads "<text> It was" and is scored on the next token.

Cross-entropy and accuracy over the classes' answer tokens (" bad" / " good") at that one position.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiso_ray.config import TaskConfig
from hiso_ray.tasks.benchmarks import Classification
from hiso_ray.tasks.causal import LanguageTask
from hiso_ray.tasks.contract import Prepared
from hiso_ray.tasks.module import Batch


def answer_tokens(benchmark: Classification, tokenizer: Any, model: str) -> list[int]:
    """The token of each class's answer.

    Raises:
        ValueError: no set of answers is made of single, distinct tokens (names them).
    """
    tried = []
    for answers in benchmark.verbalizers:
        ids = [tokenizer(answer, add_special_tokens=False)["input_ids"] for answer in answers]
        firsts = [i[0] for i in ids if len(i) == 1 and i[0] != tokenizer.unk_token_id]
        if len(set(firsts)) == len(answers):
            return firsts
        tried.append(", ".join(f"{a!r} → {i}" for a, i in zip(answers, ids, strict=True)))
    raise ValueError(
        f"task.model = {model}: its tokenizer has no single, distinct token for each answer: "
        + "; ".join(tried)
    )


class ClassificationTask(LanguageTask):
    """Scored on the one token after the prompt."""

    def __init__(self, config: TaskConfig, prepared: Prepared, device: torch.device) -> None:
        super().__init__(config, prepared, device)
        self._answers = torch.tensor(prepared.spec["answers"], device=device)

    def make_batch(self, split: str, examples: np.ndarray) -> Batch:
        labels = self._arrays[f"{split}_labels"][examples]
        inputs = self.padded(self.rows(f"{split}_prompt", examples))
        return Batch(inputs, torch.from_numpy(labels).to(self.device))

    def logits(self, inputs: dict[str, Tensor]) -> Tensor:
        out = self.module(**inputs, logits_to_keep=1, use_cache=False).logits
        return out[:, -1, self._answers]
