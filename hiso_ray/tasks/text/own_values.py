"""A language task's own values of fields that are ``auto``."""

from __future__ import annotations

from typing import Any

from hiso_ray.config import TaskConfig
from hiso_ray.errors import UserError
from hiso_ray.tasks.text.benchmark_row import Generation
from hiso_ray.tasks.text.own_prompt import benchmark_of, spelled_out

SHORTEST_PROMPT = 8  # tokens


def own_values(task: TaskConfig) -> dict[str, Any]:
    """The task's metrics, prompt and lengths.

    Raises:
        UserError: no room for a prompt, a prompt for a task that has its own, or an answer length
            for a task that is answered by one token.
    """
    prompt = spelled_out(task)
    row = benchmark_of(task)
    longest = row.max_length if task.max_length == "auto" else task.max_length
    own: dict[str, Any] = {"metrics": row.metrics, "max_length": longest, "prompt": prompt}
    if isinstance(row, Generation):
        answer = row.max_new_tokens if task.max_new_tokens == "auto" else task.max_new_tokens
        own["max_new_tokens"] = answer
        if longest < answer + SHORTEST_PROMPT:
            raise UserError(
                f"task.max_length = {longest} leaves no room for a prompt beside an answer of "
                f"max_new_tokens = {answer}: raise it to {answer + SHORTEST_PROMPT} at least"
            )
    elif task.max_new_tokens != "auto":
        raise UserError(
            f"task.max_new_tokens = {task.max_new_tokens}: {task.name} is answered by one token; "
            "leave it out"
        )
    return own


def lengths_of(config: TaskConfig) -> tuple[int, int]:
    """The longest prompt and the longest answer [tokens]; the latter is 0 for classification."""
    answer = config.max_new_tokens if isinstance(config.max_new_tokens, int) else 0
    assert isinstance(config.max_length, int)
    return config.max_length - answer, answer
