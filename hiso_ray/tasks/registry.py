"""Tasks: model, data, loss and score behind one contract (``contract.Task``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from hiso_ray.config import Experiment, LoraConfig, PromptConfig, TaskConfig
from hiso_ray.errors import UserError
from hiso_ray.federation.partition import Partition, split
from hiso_ray.server.work_units import AUTO
from hiso_ray.tasks.contract import Count, Prepared, Task
from hiso_ray.tasks.images.image_sets import DOWNLOADED
from hiso_ray.tasks.text.benchmarks import BENCHMARKS, Generation
from hiso_ray.tasks.text.own_prompt import LANGUAGE, OWN, benchmark_of, spelled_out

# task -> model, data
DEFAULTS = (
    {name: ("HuggingFaceTB/SmolLM2-135M", row.data) for name, row in BENCHMARKS.items()}
    | {OWN: ("HuggingFaceTB/SmolLM2-135M", "auto")}
    | {name: ("cnn", images.data) for name, images in DOWNLOADED.items()}
    | {
        "reviews": ("opt-reviews", "generated"),
        "digits": ("mlp-32", "scikit-learn"),
        "quadratic": ("diagonal-64", "generated"),
    }
)
SHORTEST_PROMPT = 8  # tokens
TOKENS = 4096  # of one forward pass, where clients_per_forward is auto
LANGUAGE_ONLY = {
    "max_length": "auto", "max_new_tokens": "auto", "trainable": "all", "sparse_fraction": 1.0,
    "sparse_by": "magnitude", "lora": LoraConfig(), "frozen_layers": "recompute",
    "prompt": PromptConfig(),
}  # fmt: skip


def resolve(experiment: Experiment) -> Experiment:
    """The experiment with model, data, metric and the task's own numbers spelled out.

    Raises:
        UserError: an unknown task, data for a task that has its own, a metric that the task does
            not have, or a language option for a task without language.
    """
    task = experiment.task
    if task.name not in DEFAULTS:
        raise UserError(f"task.name = {task.name}: unknown task (allowed: {', '.join(DEFAULTS)})")
    model, data = DEFAULTS[task.name]
    if task.name in ("digits", "quadratic") and task.data not in ("auto", data):
        raise UserError(f"task.data = {task.data}: {task.name} has its own data, leave it out")
    own = _language(task) if task.name in LANGUAGE else _other(experiment)
    if task.metric not in ("auto", *own["metrics"]):
        raise UserError(
            f"task.metric = {task.metric}: {task.name} is scored by {', '.join(own['metrics'])}"
        )
    return experiment.changed(
        **{
            "task.model": model if task.model == "auto" else _absolute(task.model),
            "task.data": data if task.data == "auto" else _absolute(task.data),
            "task.metric": own["metrics"][0] if task.metric == "auto" else task.metric,
            "task.clients_per_forward": _together(task, own.get("max_length", 1)),
            **{f"task.{name}": value for name, value in own.items() if name != "metrics"},
        }
    )


def _language(task: TaskConfig) -> dict[str, Any]:
    """A language task's metrics, its prompt, and its lengths: its own where none were given."""
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


def _together(task: TaskConfig, longest: int) -> int:
    """Clients in one forward pass."""
    if task.clients_per_forward != "auto":
        return task.clients_per_forward
    return max(1, min(AUTO, TOKENS // (task.batch_size * longest)))


def _other(experiment: Experiment) -> dict[str, Any]:
    task = experiment.task
    for name, default in LANGUAGE_ONLY.items():
        if getattr(task, name) != default:
            raise UserError(f"task.{name}: {task.name} is no language task; leave it out")
    for name in ("train_examples", "eval_examples"):
        if task.name == "quadratic" and getattr(task, name) != "auto":
            raise UserError(f"task.{name}: the quadratic has examples of its own; leave it out")
    if task.name == "quadratic" and task.validation_examples:
        raise UserError(
            "task.validation_examples: the quadratic is scored on its optimum, which is no set of "
            "examples; leave it out"
        )
    if experiment.federation.by != "label":
        raise UserError(
            f"federation.by = {experiment.federation.by}: {task.name} has labels only; leave it out"
        )
    return {"metrics": ("accuracy",)}


def _absolute(name: str) -> str:
    """A path that exists is spelled out, so that replay finds it from anywhere."""
    path = Path(name).expanduser()
    return str(path.resolve()) if path.exists() else name


def _module(experiment: Experiment) -> Any:
    """The module of the task: it has ``prepare``, ``count`` and ``build``."""
    from hiso_ray.tasks import quadratic
    from hiso_ray.tasks.images import vision
    from hiso_ray.tasks.language import language

    modules = {"digits": vision, "quadratic": quadratic} | dict.fromkeys(DOWNLOADED, vision)
    return modules.get(experiment.task.name, language)


def prepare(experiment: Experiment) -> Prepared:
    """Reads the task's model and data once; the experiment must be resolved.

    Raises:
        UserError: what is missing or does not fit, in words.
    """
    return _module(experiment).prepare(experiment)


def load(experiment: Experiment) -> tuple[Prepared, Partition]:
    """:func:`prepare`, and who holds which training examples."""
    prepared = prepare(experiment)
    return prepared, split(experiment.federation, prepared.labels, experiment.seed)


def count(experiment: Experiment) -> Count:
    """How many weights there are, without reading any weights or data.

    Raises:
        UserError: a model whose structure cannot be had.
    """
    return _module(experiment).count(experiment.task)


def preview(experiment: Experiment) -> tuple[str, ...]:
    """Lines that show the first training prompts of a language task as the model will read them,
    from what is on this machine; the experiment must be resolved. Other tasks have none.

    Raises:
        UserError: the data are here, and do not fit.
    """
    from hiso_ray.tasks.language import first_prompts

    return first_prompts.lines(experiment) if experiment.task.name in LANGUAGE else ()


def build(experiment: Experiment, prepared: Prepared, device: torch.device) -> Task:
    """The task in this process, on one device."""
    task = _module(experiment).build(experiment.task, prepared, device)
    if experiment.task.frozen_layers != "recompute":
        task.keep_states(int(experiment.resources.frozen_states_mb * 2**20))
    return task
