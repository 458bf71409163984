"""Tasks: model, data, loss and score behind one contract (``contract.Task``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from hiso_ray.config import Experiment
from hiso_ray.tasks.benchmarks import BENCHMARKS
from hiso_ray.tasks.contract import Prepared, Task
from hiso_ray.tasks.partition import Partition, split

DEFAULTS = {
    "digits": ("mlp-32", "scikit-learn"),
    "quadratic": ("diagonal-64", "generated"),
} | {name: ("HuggingFaceTB/SmolLM2-135M", row.data) for name, row in BENCHMARKS.items()}


def resolve(experiment: Experiment) -> Experiment:
    """The experiment with model, data and curvature spelled out.

    Raises:
        ValueError: an unknown task, or data for a task that has its own.
    """
    task = experiment.task
    if task.name not in DEFAULTS:
        raise ValueError(f"task.name = {task.name}: unknown task (allowed: {', '.join(DEFAULTS)})")
    model, data = DEFAULTS[task.name]
    if task.name not in BENCHMARKS and task.data not in ("auto", data):
        raise ValueError(f"task.data = {task.data}: {task.name} has its own data, leave it out")
    return experiment.changed(
        **{
            "method.curvature": experiment.curvature,
            "task.model": model if task.model == "auto" else _absolute(task.model),
            "task.data": data if task.data == "auto" else _absolute(task.data),
        }
    )


def _absolute(name: str) -> str:
    """A path that exists is spelled out, so that replay finds it from anywhere."""
    path = Path(name).expanduser()
    return str(path.resolve()) if path.exists() else name


def _module(experiment: Experiment) -> Any:
    """The module of the task: it has ``prepare`` and ``build``."""
    from hiso_ray.tasks import language, quadratic, vision

    return {"digits": vision, "quadratic": quadratic}.get(experiment.task.name, language)


def prepare(experiment: Experiment) -> Prepared:
    """Reads the task's model and data once; the experiment must be resolved.

    Raises:
        ValueError: what is missing or does not fit, in words.
    """
    return _module(experiment).prepare(experiment.task, experiment.seed)


def load(experiment: Experiment) -> tuple[Prepared, Partition]:
    """:func:`prepare`, and who holds which training examples."""
    prepared = prepare(experiment)
    return prepared, split(experiment.federation, prepared.labels, experiment.seed)


def build(experiment: Experiment, prepared: Prepared, device: torch.device) -> Task:
    """The task in this process, on one device."""
    return _module(experiment).build(experiment.task, prepared, device)
