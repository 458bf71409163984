"""Tasks whose answer is text: trained on the answer's tokens, scored on the generated answer.

A sequence is prompt + answer. The loss is the mean cross-entropy over the answer tokens of the
minibatch; prompt tokens have no loss and their logits are not computed. Evaluation gives the same
prompt and decodes greedily, up to ``task.max_new_tokens`` tokens or the end of the line; for tasks
with answers of several lines, up to the end of the text.
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
from hiso_ray.errors import UserError
from hiso_ray.tasks.contract import Prepared
from hiso_ray.tasks.flat.batch import Batch, cross_entropy
from hiso_ray.tasks.language.causal import LanguageTask
from hiso_ray.tasks.language.decoding import greedy
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


class _Head(nn.Module):
    """Computes a task's losses from hidden states, as a module's forward."""

    def __init__(self, task: GenerationTask) -> None:
        super().__init__()
        self.module, self._logits = task.module, task.forward.logits

    def forward(self, hidden: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(self._logits(hidden), labels)

    def alike(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The same function, fixed to the weights that the module has now."""
        weights: dict[str, Tensor] = dict(self.named_parameters())
        return lambda hidden, labels: functional_call(self, weights, (hidden, labels))


class GenerationTask(LanguageTask):
    """Trained on answer tokens, scored on greedy answers."""

    def __init__(self, config: TaskConfig, prepared: Prepared, device: torch.device) -> None:
        super().__init__(config, prepared, device)
        from tokenizers import Tokenizer

        self._references = prepared.spec["evaluation"]["references"]
        benchmark = benchmark_of(config)
        assert isinstance(benchmark, Generation)
        self._metrics, self._one_line = benchmark.metrics, benchmark.one_line
        model: Any = self.module
        self._vocabulary = model.config.get_text_config().vocab_size
        self._tokenizer = Tokenizer.from_str(prepared.arrays["eval_tokenizer"].tobytes().decode())

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
