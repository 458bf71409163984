"""A task's entry in the registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from hiso_ray.config import TaskConfig

EXAMPLES = frozenset({"train_examples", "eval_examples", "validation_examples"})
ALWAYS = frozenset(
    {"name", "model", "metric", "batch_size", "eval_batch_size", "dtype", "clients_per_forward"}
)


def _scored_by_accuracy(_: TaskConfig) -> dict[str, Any]:
    return {"metrics": ("accuracy",)}


def _no_classes(_: TaskConfig) -> bool:
    return False


def always(_: TaskConfig) -> bool:
    return True


@dataclass(frozen=True)
class Row:
    """One task.

    Attributes:
        model, data: the values of ``auto``.
        module: module with its functions: ``prepare`` (resolved experiment ->
            ``contract.Prepared``), ``count`` (``task`` section -> ``contract.Count``), ``build``
            (``task`` section, ``Prepared``, device -> ``contract.Task``), and optionally
            ``preview`` (experiment -> lines to show before a run) and, if it reads
            ``sparse_text``, ``plain_text`` (``task`` section, ``Prepared`` -> a task on a CPU, and
            its batches). Imported on first use.
        reads: the fields of ``task`` that it reads, besides ``ALWAYS``.
        own: ``task`` section -> ``metrics``, the first of which is the default metric, and the
            task's own values of fields that are ``auto``.
        groups: whether its examples have lengths and columns for ``federation.by``.
        layers: whether weights can be perturbed layer by layer.
        classifies: ``task`` section -> whether it tells classes apart (``Prepared.classes``).
    """

    model: str
    data: str
    module: str
    reads: frozenset[str] = field(default=EXAMPLES)
    own: Callable[[TaskConfig], dict[str, Any]] = _scored_by_accuracy
    groups: bool = False
    layers: bool = True
    classifies: Callable[[TaskConfig], bool] = _no_classes

    def functions(self) -> Any:
        return import_module(self.module)
