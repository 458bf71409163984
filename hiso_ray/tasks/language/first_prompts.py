"""The first training prompts of a language task, as the model will read them.

The examples and their tokens come from the same functions as in training. No weights are read, and
no hub is contacted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hiso_ray.config import Experiment
from hiso_ray.errors import UserError
from hiso_ray.tasks.language.classification import answer_tokens
from hiso_ray.tasks.language.generation import written_answers
from hiso_ray.tasks.pretrained import pretrained
from hiso_ray.tasks.text.benchmark_row import Classification, Generation
from hiso_ray.tasks.text.examples import read
from hiso_ray.tasks.text.groups import column_of
from hiso_ray.tasks.text.own_prompt import benchmark_of
from hiso_ray.tasks.text.own_values import lengths_of
from hiso_ray.tasks.text.tokens import tokenize

SHOWN = 2  # prompts
TOKENS = 120  # shown of a longer sequence, half of them from its beginning and half from its end


def lines(experiment: Experiment) -> tuple[str, ...]:
    """The lines to show; if data or tokenizer are not on this machine, one line that says so.

    Raises:
        UserError: the data do not fit the task, or the answers do not fit the tokenizer.
    """
    config, benchmark = experiment.task, benchmark_of(experiment.task)
    if config.data != "generated" and not Path(config.data).expanduser().exists():
        return (f"prompts are not shown: task.data = {config.data} is not on this machine",)
    try:
        tokenizer = pretrained.local_tokenizer(config.model)
    except UserError as error:
        return (f"prompts are not shown: {error}",)
    column = column_of(experiment.federation.by)
    train, evaluation, notes = read(benchmark, config, experiment.seed, column)
    limit, budget = lengths_of(config)
    prompts = tokenize(train.prompts[:SHOWN], train.contexts[:SHOWN], tokenizer, limit)
    answers = _answers(benchmark, train.labels[:SHOWN].tolist(), train.references[:SHOWN],
                       tokenizer, config.model, budget)  # fmt: skip
    found = [
        *notes,
        f"{len(train)} training and {len(evaluation)} evaluation prompts; the first of training, "
        "as text and as tokens (id 'text'):",
    ]
    for number, answer in enumerate(answers):
        ids = _row(prompts, number)
        cut = f", the beginning of its {benchmark.context} cut off" if prompts.cut[number] else ""
        found += [
            f"{number + 1}. {tokenizer.decode(ids)!r}",
            f"   {len(ids)} tokens{cut}: {_shown(ids, tokenizer)}",
            f"   {answer}",
        ]
    return tuple(found)


def _answers(
    benchmark: Classification | Generation,
    labels: Sequence[int],
    references: Sequence[Sequence[str]],
    tokenizer: Any,
    model: str,
    budget: int,
) -> list[str]:
    """A line that describes the answer to each prompt."""
    if isinstance(benchmark, Classification):
        tokens = answer_tokens(benchmark, tokenizer, model)
        choice = _shown(tokens, tokenizer)
        return [
            f"answer {_shown([tokens[label]], tokenizer)} ({benchmark.names[label]}), of {choice}"
            for label in labels
        ]
    found = written_answers(benchmark, references, tokenizer, budget)
    rows = [_row(found, number) for number in range(len(references))]
    return [
        f"answer of {len(ids)} tokens{', its end cut off' if cut else ''}: {_shown(ids, tokenizer)}"
        for ids, cut in zip(rows, found.cut, strict=True)
    ]


def _row(tokens: Any, number: int) -> list[int]:
    return tokens.ids[tokens.offsets[number] : tokens.offsets[number + 1]].tolist()


def _shown(ids: Sequence[int], tokenizer: Any) -> str:
    shown = [f"{token} {tokenizer.decode([token])!r}" for token in ids]
    if len(shown) > TOKENS:
        shown[TOKENS // 2 : -TOKENS // 2] = ["…"]
    return ", ".join(shown)
