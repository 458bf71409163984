"""Tasks whose answer is text: trained on the answer's tokens, scored on the generated answer.

Losses are those of ``written``. Evaluation gives the same prompt and decodes greedily, up to
``task.max_new_tokens`` tokens or the end of the line; for tasks with answers of several lines, up
to the end of the text.
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
from hiso_ray.tasks.language.decoding import greedy
from hiso_ray.tasks.language.written import WrittenTask
from hiso_ray.tasks.text.benchmark_row import Generation
from hiso_ray.tasks.text.own_prompt import benchmark_of
from hiso_ray.tasks.text.prompts import Examples
from hiso_ray.tasks.text.scores import best
from hiso_ray.tasks.text.tokens import Tokens, tokenize


def answers(
    benchmark: Generation, train: Examples, evaluation: Examples, tokenizer: Any, budget: int
) -> tuple[dict[str, np.ndarray], float]:
    """Tokens of every example's first reference, as tokenized after the prompt, together with the
    tokenizer (its JSON as bytes), so that no process needs its files; and the share of answers
    that were longer than the budget."""
    written = tokenizer.backend_tokenizer.to_str().encode()
    arrays = {"eval_tokenizer": np.frombuffer(written, np.uint8)}
    cut = 0
    for split, examples in (("train", train), ("eval", evaluation)):
        found = written_answers(benchmark, examples.references, tokenizer, budget)
        arrays |= {f"{split}_answer_ids": found.ids, f"{split}_answer_offsets": found.offsets}
        cut += int(found.cut.sum())
    return arrays, cut / (len(train) + len(evaluation))


def written_answers(
    benchmark: Generation, references: Sequence[Sequence[str]], tokenizer: Any, budget: int
) -> Tokens:
    """Tokens of each example's first reference, as tokenized after the prompt.

    Raises:
        UserError: answers end with the end-of-text token, and the tokenizer has none.
    """
    end = tokenizer.eos_token
    if end is None and not benchmark.one_line:
        raise UserError(
            "task.model: its tokenizer has no end-of-text token (eos_token), which ends an answer "
            "of this task; choose another model, or task.name prompts with task.prompt.ends line"
        )
    texts = [benchmark.answer.format(reference=some[0], end=end) for some in references]
    return tokenize(texts, None, tokenizer, budget)


def decoding(benchmark: Generation, evaluation: Examples, tokenizer: Any) -> dict[str, Any]:
    """The tokens at which greedy decoding stops, and the references that answers are scored by."""
    stops = set() if tokenizer.eos_token_id is None else {tokenizer.eos_token_id}
    if benchmark.one_line:
        # A newline is often the end of a longer token (".\n"), whose other text is kept.
        texts = tokenizer.backend_tokenizer.decode_batch([[i] for i in range(len(tokenizer))])
        stops |= {i for i, text in enumerate(texts) if text.endswith("\n")}
    return {
        "stops": sorted(stops),
        "references": evaluation.references,
    }


class GenerationTask(WrittenTask):
    """Trained on answer tokens, scored on greedy answers."""

    def __init__(self, config: TaskConfig, prepared: Prepared, device: torch.device) -> None:
        super().__init__(config, prepared, device)
        from tokenizers import Tokenizer

        self._references = prepared.spec["evaluation"]["references"]
        benchmark = benchmark_of(config)
        assert isinstance(benchmark, Generation)
        self._metrics, self._one_line = benchmark.metrics, benchmark.one_line
        self._tokenizer = Tokenizer.from_str(prepared.arrays["eval_tokenizer"].tobytes().decode())

    def scored(self, examples: np.ndarray, batch: Batch) -> tuple[Tensor, dict[str, np.ndarray]]:
        pairs = list(zip(self.answers(examples), (self._references[i] for i in examples),
                         strict=True))  # fmt: skip
        points = {
            name: np.array([best(name, *pair) for pair in pairs], np.float32)
            for name in self._metrics
        }
        return self.terms(batch), points

    def answers(self, examples: np.ndarray) -> list[str]:
        """Greedy answers to evaluation prompts, cut to the first line for one-line tasks."""
        stops = self._spec["evaluation"]["stops"]
        prompts = self.rows("eval_prompt", examples)
        assert isinstance(self.config.max_new_tokens, int)
        new = greedy(self.forward, prompts, self.config.max_new_tokens, stops)
        texts = self._tokenizer.decode_batch(new, skip_special_tokens=True)
        texts = [text.strip() for text in texts]
        return [text.partition("\n")[0].strip() for text in texts] if self._one_line else texts
