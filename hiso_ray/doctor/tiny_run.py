"""A run of three rounds in this process, whose digest tells whether nodes compute the same bits."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from hiso_ray.config import Experiment, ResourcesConfig
from hiso_ray.execution.contract import Job
from hiso_ray.execution.driver import run_rounds
from hiso_ray.execution.serial import SerialExecutor
from hiso_ray.runs.setting import settle
from hiso_ray.tasks.threads import torch_threads

SMALL = {
    "task.name": "digits",
    "method.lr": 0.02,
    "federation.num_clients": 4,
    "federation.clients_per_round": 2,
    "federation.rounds": 3,
    "eval.every": 3,
    "resources.executor": "serial",
}


class Bits(NamedTuple):
    """What a node computes with, and what it computed.

    Attributes:
        device: as in ``messages.Description``.
        digest: of the weights after the last round.
    """

    device: str
    digest: str


def tiny_run(resources: ResourcesConfig) -> Bits:
    """Runs HiSo on scikit-learn's digits with the threads and the device that an actor would have.

    Raises:
        UserError: the device is too small or full.
    """
    own = {
        f"resources.{name}": getattr(resources, name)
        for name in ("cpus_per_client", "gpus_per_client")
    }
    setting = settle(Experiment().changed(**(SMALL | own)))
    experiment = setting.experiment
    with tempfile.TemporaryDirectory(prefix="hiso-doctor-") as folder, torch_threads(experiment):
        executor = SerialExecutor(experiment, setting.prepared, setting.partition, _ignore)
        job = Job(
            experiment,
            Path(folder),
            setting.identity,
            setting.population,
            setting.evaluation_sha256,
        )
        summary = run_rounds(job, executor, _ignore, _ignore)
    return Bits(executor.description.device, summary["model_sha256"])


def _ignore(_: Any) -> None:
    return None
