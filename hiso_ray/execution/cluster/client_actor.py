"""A worker behind one method."""

from __future__ import annotations

import pickle
from typing import Any

from hiso_ray.config import Experiment
from hiso_ray.messages import Behind, Description, NonFiniteLoss


class ClientActor:
    """A worker behind one method, so that one place counts, retries and reports."""

    def __init__(self, experiment: Experiment, prepared: Any, partition: Any) -> None:
        import torch

        from hiso_ray.execution.worker import Worker, threads_for

        torch.set_num_threads(threads_for(experiment))
        self.worker = Worker(experiment, prepared, partition)

    def describe(self) -> Description:
        return self.worker.describe()

    def call(self, message: bytes) -> bytes:
        """(method of the worker, records, arguments) -> its result, or an expected exception."""
        method, records, arguments = pickle.loads(message)
        try:
            return pickle.dumps(getattr(self.worker, method)(records, *arguments))
        except (Behind, NonFiniteLoss) as answer:
            return pickle.dumps(answer)
