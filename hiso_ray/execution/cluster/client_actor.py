"""A worker behind one method."""

from __future__ import annotations

import pickle
from typing import Any

import ray

from hiso_ray.config import Experiment
from hiso_ray.messages import Behind, Description, NonFiniteLoss


class ClientActor:
    """Answers messages, so that one place counts, retries and reports them.

    Attributes:
        reborn: Ray restarted this actor, and the driver has not been told yet.
    """

    def __init__(self, experiment: Experiment, prepared: Any, partition: Any) -> None:
        import torch

        from hiso_ray.execution.worker import Worker, threads_for

        torch.set_num_threads(threads_for(experiment))
        self.worker = Worker(experiment, prepared, partition)
        self.reborn = ray.get_runtime_context().was_current_actor_reconstructed

    def describe(self) -> Description:
        return self.worker.describe()

    def call(self, message: bytes) -> bytes:
        """(records, round, method of the worker, arguments) -> its result.

        Expected exceptions are answers too: ``Behind`` when it lacks records or has been restarted,
        ``NonFiniteLoss`` from a client.
        """
        records, round_, method, arguments = pickle.loads(message)
        try:
            if self.reborn:
                self.reborn = False
                raise Behind(0)
            self.worker.catch_up(records, round_)
            return pickle.dumps(getattr(self.worker, method)(*arguments))
        except (Behind, NonFiniteLoss) as answer:
            return pickle.dumps(answer)
