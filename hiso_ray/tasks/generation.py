"""Tasks whose answer is text: trained on the answer's tokens, scored on what the model writes.

A sequence is prompt + answer, padded on the left, so all answers end at the last position. The loss
is the mean cross-entropy over answer tokens of the minibatch; prompt and padding count for nothing.
Evaluation gives the same prompt and decodes greedily, up to ``task.max_new_tokens`` tokens or the
end of the line.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiso_ray.config import TaskConfig
from hiso_ray.tasks.benchmarks import BENCHMARKS, Generation
from hiso_ray.tasks.causal import LanguageTask
from hiso_ray.tasks.contract import Prepared
from hiso_ray.tasks.module import IGNORED, Batch
from hiso_ray.tasks.prompts import Examples
from hiso_ray.tasks.scores import best
from hiso_ray.tasks.tokens import tokenize


def answers(
    benchmark: Generation, train: Examples, evaluation: Examples, tokenizer: Any, budget: int
) -> tuple[dict[str, np.ndarray], float]:
    """Tokens of the first reference of every example, as it stands after the prompt, and the
    tokenizer itself (its JSON as bytes), so that no process needs its files; and the share of
    answers that were longer than the budget."""
    written = tokenizer.backend_tokenizer.to_str().encode()
    arrays = {"eval_tokenizer": np.frombuffer(written, np.uint8)}
    cut = 0
    for split, examples in (("train", train), ("eval", evaluation)):
        texts = [benchmark.answer.format(reference=r[0]) for r in examples.references]
        found = tokenize(texts, None, tokenizer, budget)
        arrays |= {f"{split}_answer_ids": found.ids, f"{split}_answer_offsets": found.offsets}
        cut += int(found.cut.sum())
    return arrays, cut / (len(train) + len(evaluation))


def decoding(evaluation: Examples, tokenizer: Any) -> dict[str, Any]:
    """Where greedy decoding stops, and what its answers are scored against."""
    # The end of a line is often part of a longer token (".\n"), whose text before it counts.
    texts = tokenizer.backend_tokenizer.decode_batch([[i] for i in range(len(tokenizer))])
    stops = {i for i, text in enumerate(texts) if text.endswith("\n")}
    stops |= set() if tokenizer.eos_token_id is None else {tokenizer.eos_token_id}
    return {
        "stops": sorted(stops),
        "references": evaluation.references,
    }


class GenerationTask(LanguageTask):
    """Trained on answer tokens, scored on greedy answers."""

    def __init__(self, config: TaskConfig, prepared: Prepared, device: torch.device) -> None:
        super().__init__(config, prepared, device)
        from tokenizers import Tokenizer

        self._references = prepared.spec["evaluation"]["references"]
        self._metrics = BENCHMARKS[config.name].metrics
        self._tokenizer = Tokenizer.from_str(prepared.arrays["eval_tokenizer"].tobytes().decode())

    def make_batch(self, split: str, examples: np.ndarray) -> Batch:
        prompts = self.rows(f"{split}_prompt", examples)
        wanted = self.rows(f"{split}_answer", examples)
        inputs = self.padded([np.concatenate(pair) for pair in zip(prompts, wanted, strict=True)])
        labels = np.full((len(wanted), max(map(len, wanted))), IGNORED, np.int64)
        for row, answer in zip(labels, wanted, strict=True):
            row[len(row) - len(answer) :] = answer
        return Batch(inputs | {"answer": labels.shape[1]}, torch.from_numpy(labels).to(self.device))

    def logits(self, inputs: dict[str, Any]) -> Tensor:
        """(n, longest answer, vocabulary): those that predict the last positions."""
        tensors = {name: value for name, value in inputs.items() if name != "answer"}
        end = tensors["input_ids"].shape[1] - 1
        before = torch.arange(end - inputs["answer"], end, device=self.device)
        return self.module(**tensors, logits_to_keep=before, use_cache=False).logits

    def points(self, examples: np.ndarray, logits: Tensor, labels: Tensor) -> dict[str, float]:
        pairs = list(zip(self.answers(examples), (self._references[i] for i in examples),
                         strict=True))  # fmt: skip
        return {name: sum(best(name, *pair) for pair in pairs) for name in self._metrics}

    def answers(self, examples: np.ndarray) -> list[str]:
        """Greedy answers to evaluation prompts, up to the end of their first line."""
        from transformers import GenerationConfig

        stops = self._spec["evaluation"]["stops"]
        inputs = self.padded(self.rows("eval_prompt", examples))
        inputs.pop("position_ids", None)  # generate counts them from the mask
        model: Any = self.module
        written = model.generate(
            **inputs,
            generation_config=GenerationConfig(
                max_new_tokens=self.config.max_new_tokens,
                do_sample=False,
                num_beams=1,
                eos_token_id=stops or None,
                pad_token_id=stops[0] if stops else 0,
            ),
        )
        new = written[:, inputs["input_ids"].shape[1] :].tolist()
        texts = self._tokenizer.decode_batch(new, skip_special_tokens=True)
        return [text.strip().partition("\n")[0].strip() for text in texts]
