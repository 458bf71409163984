"""The table of tasks, and the functions that dispatch to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from hiso_ray import progress
from hiso_ray.config import Experiment, TaskConfig
from hiso_ray.config.outside import outside
from hiso_ray.errors import UserError
from hiso_ray.federation.partition import Partition, split
from hiso_ray.server.work_units import AUTO
from hiso_ray.tasks import sparse
from hiso_ray.tasks.contract import Count, Prepared, Task
from hiso_ray.tasks.images.image_sets import DOWNLOADED
from hiso_ray.tasks.row import ALWAYS, EXAMPLES, Row, always
from hiso_ray.tasks.text.benchmark_row import Classification
from hiso_ray.tasks.text.benchmarks import BENCHMARKS
from hiso_ray.tasks.text.own_prompt import OWN, benchmark_of
from hiso_ray.tasks.text.own_values import own_values

LANGUAGE = "hiso_ray.tasks.language.language"
VISION = "hiso_ray.tasks.images.vision"
OF_LANGUAGE = EXAMPLES | {
    "data", "max_length", "max_new_tokens", "trainable", "sparse_fraction", "sparse_by",
    "sparse_text", "lora", "frozen_layers", "prompt",
}  # fmt: skip
OF_IMAGES = EXAMPLES | {"sparse_fraction", "sparse_by"}
TOKENS = 4096  # of one forward pass, if clients_per_forward is auto


def _language(data: str, model: str = "HuggingFaceTB/SmolLM2-135M") -> Row:
    return Row(model, data, LANGUAGE, OF_LANGUAGE, own_values, groups=True, classifies=_of_words)


def _of_words(task: TaskConfig) -> bool:
    return isinstance(benchmark_of(task), Classification)


TASKS: dict[str, Row] = (
    {name: _language(row.data) for name, row in BENCHMARKS.items()}
    | {"reviews": _language("generated", "opt-reviews"), OWN: _language("auto")}
    | {
        name: Row("cnn", images.data, VISION, OF_IMAGES | {"data"}, classifies=always)
        for name, images in DOWNLOADED.items()
    }
    | {
        "digits": Row("mlp-32", "scikit-learn", VISION, OF_IMAGES, classifies=always),
        "quadratic": Row(
            "diagonal-64", "generated", "hiso_ray.tasks.quadratic", frozenset(), layers=False
        ),
    }
)
TASKS |= outside("hiso_ray.tasks", TASKS)


def row_of(task: TaskConfig) -> Row:
    """
    Raises:
        UserError: there is no such task.
    """
    if task.name not in TASKS:
        raise UserError(f"task.name = {task.name}: unknown task (allowed: {', '.join(TASKS)})")
    return TASKS[task.name]


def resolve(experiment: Experiment) -> Experiment:
    """The experiment with ``auto`` replaced for model, data, metric and the task's own fields.

    Raises:
        UserError: an unknown task, a metric that the task does not have, or an option that it does
            not read.
    """
    task, row = experiment.task, row_of(experiment.task)
    _check_read(experiment, row)
    own = row.own(task)
    metrics = own.pop("metrics")
    if task.metric not in ("auto", *metrics):
        raise UserError(
            f"task.metric = {task.metric}: {task.name} is scored by {', '.join(metrics)}"
        )
    return experiment.changed(
        **{
            "task.model": row.model if task.model == "auto" else _absolute(task.model),
            "task.data": row.data if task.data == "auto" else _absolute(task.data),
            "task.metric": metrics[0] if task.metric == "auto" else task.metric,
            "task.sparse_text": task.sparse_text and _absolute(task.sparse_text),
            "task.clients_per_forward": _together(task, own.get("max_length", 1)),
            **{f"task.{name}": value for name, value in own.items()},
        }
    )


def _check_read(experiment: Experiment, row: Row) -> None:
    task, fields = experiment.task, TaskConfig.model_fields
    if "data" not in row.reads and task.data not in ("auto", row.data):
        raise UserError(f"task.data = {task.data}: {task.name} has its own data, leave it out")
    for name in fields.keys() - row.reads - ALWAYS - {"data"}:
        if getattr(task, name) != fields[name].default:
            raise UserError(f"task.{name}: {task.name} does not read it; leave it out")
    if experiment.federation.by != "label" and not row.groups:
        raise UserError(
            f"federation.by = {experiment.federation.by}: {task.name} has labels only; leave it out"
        )
    if experiment.method.client_loss == "calibrated" and not row.classifies(task):
        raise UserError(
            f"method.client_loss = calibrated: task.name = {task.name} does not tell classes "
            "apart; use plain"
        )
    if experiment.resources.probe_weights == "layer" and not row.layers:
        raise UserError(
            f"resources.probe_weights = layer: task.name = {task.name} has no layers; use whole"
        )


def _together(task: TaskConfig, longest: int) -> int:
    """Clients in one forward pass."""
    if task.clients_per_forward != "auto":
        return task.clients_per_forward
    return max(1, min(AUTO, TOKENS // (task.batch_size * longest)))


def _absolute(name: str) -> str:
    """Makes an existing path absolute, so that replay finds it from any working directory."""
    path = Path(name).expanduser()
    return str(path.resolve()) if path.exists() else name


def prepare(experiment: Experiment, mask: np.ndarray | None = None) -> Prepared:
    """Reads the task's model and data once; the experiment must be resolved.

    Args:
        mask: an earlier result of ``sparse.choose``, if the task has a mask and it is known.

    Raises:
        UserError: something is missing or does not fit; says what.
    """
    functions = row_of(experiment.task).functions()
    with progress.step(f"preparing {experiment.task.name}"):
        prepared: Prepared = functions.prepare(experiment)
        if experiment.task.sparse_fraction == 1:
            return prepared
        if mask is None:
            mask = sparse.choose(experiment, prepared, functions)
    return sparse.masked(prepared, mask)


def load(experiment: Experiment) -> tuple[Prepared, Partition]:
    """:func:`prepare`, and the partition: which client holds which training examples."""
    prepared = prepare(experiment)
    return prepared, split(experiment.federation, prepared.labels, experiment.seed)


def count(experiment: Experiment) -> Count:
    """How many weights there are, without reading any weights or data.

    Raises:
        UserError: the model's structure is not available, or the mask would keep no weight.
    """
    task = experiment.task
    return sparse.counted(row_of(task).functions().count(task), task)


def preview(experiment: Experiment) -> tuple[str, ...]:
    """Lines that show the first training prompts of a language task as the model will read them,
    from local files only; the experiment must be resolved. Empty for other tasks.

    Raises:
        UserError: the data are on this machine but do not fit the task.
    """
    show = getattr(row_of(experiment.task).functions(), "preview", None)
    return tuple(show(experiment)) if show else ()


def build(experiment: Experiment, prepared: Prepared, device: torch.device) -> Task:
    """The task in this process, on one device."""
    functions, resources = row_of(experiment.task).functions(), experiment.resources
    task: Task = functions.build(experiment.task, prepared, device)
    if experiment.task.frozen_layers != "recompute":
        task.keep_states(int(resources.frozen_states_mb * 2**20))  # type: ignore[attr-defined]
    return task
