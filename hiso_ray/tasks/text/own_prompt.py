"""A user's own task as a row of the table: ``task.prompt`` -> a ``Benchmark``.

Downstream code (examples, tokens, answers, the plan) does not know where a row comes from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hiso_ray.config import PromptConfig, TaskConfig
from hiso_ray.config.prompt import columns_of
from hiso_ray.errors import UserError
from hiso_ray.tasks.text.benchmark_row import Benchmark, Classification, Generation
from hiso_ray.tasks.text.benchmarks import BENCHMARKS
from hiso_ray.tasks.text.scores import SCORES

OWN = "prompts"  # the task's name
LANGUAGE = (*BENCHMARKS, OWN)


def benchmark_of(task: TaskConfig) -> Classification | Generation:
    """A language task's row, from the table or from ``task.prompt``."""
    return BENCHMARKS[task.name] if task.name in BENCHMARKS else _row(task)


def _row(task: TaskConfig) -> Classification | Generation:
    prompt, columns = task.prompt, columns_of(task.prompt.template)
    usual = Benchmark.splits
    common: dict[str, Any] = {
        "data": task.data,
        "config": prompt.configuration or None,
        "splits": tuple(
            names if given == "auto" else (given,)
            for given, names in zip((prompt.train, prompt.evaluation), usual, strict=True)
        ),
        "divided": (prompt.train, prompt.evaluation) == ("auto", "auto"),
        "fields": {column: (f"{{{column}}}",) for column in columns},
        "prompt": prompt.template,
        "context": columns[0] if prompt.context == "auto" else prompt.context,
        "train_examples": None,
        "eval_examples": None,
    }
    answers = prompt.answers
    if answers:
        labels = map(str, range(len(answers))) if prompt.labels == "auto" else prompt.labels
        names = [answer.strip() for answer in answers] if prompt.names == "auto" else prompt.names
        return Classification(
            labels={prompt.label_column: tuple(label.lower() for label in labels)},
            verbalizers=(answers,),
            names=tuple(names),
            **common,
        )
    space = "" if prompt.template[-1].isspace() else " "
    end = "\n" if prompt.ends == "line" else "{end}"
    return Generation(
        references=(prompt.answer_column,),
        answer=f"{space}{{reference}}{end}",
        max_new_tokens=50,
        metrics=Generation.metrics if prompt.metrics == "auto" else prompt.metrics,
        **common,
    )


def spelled_out(task: TaskConfig) -> PromptConfig:
    """``task.prompt`` with every ``auto`` replaced by the value in its row, except for splits.

    Raises:
        UserError: a prompt for a task that has its own, no prompt or no data for the task
            ``prompts``, a configuration for local data, or an unknown metric.
    """
    prompt = task.prompt
    if task.name != OWN:
        if prompt != PromptConfig():
            raise UserError(
                f"task.prompt: {task.name} has a prompt of its own; leave it out, or use task.name "
                f"{OWN}"
            )
        return prompt
    if not prompt.template:
        raise UserError(
            f"task.prompt.template is missing: {OWN} needs the text before the answer, such as "
            "'{review} Overall it was', and task.prompt.answers or task.prompt.answer_column"
        )
    if task.data == "auto":
        raise UserError(
            f"task.data = auto: {OWN} has no data of its own; give a hub dataset, or a local "
            "folder or file"
        )
    if prompt.configuration and Path(task.data).expanduser().exists():
        raise UserError(
            f"task.prompt.configuration = {prompt.configuration} is of hub datasets, and task.data "
            f"= {task.data} is local; leave it out"
        )
    unknown = set() if prompt.metrics == "auto" else set(prompt.metrics) - set(SCORES)
    if unknown:
        raise UserError(
            f"task.prompt.metrics: unknown {', '.join(sorted(unknown))} (allowed: "
            f"{', '.join(SCORES)}; classification is scored by accuracy)"
        )
    row = _row(task)
    found: dict[str, Any] = {"context": row.context}
    if isinstance(row, Classification):
        found |= {"labels": row.labels[prompt.label_column], "names": row.names}
    else:
        found["metrics"] = row.metrics
    return prompt.model_copy(update=found)
