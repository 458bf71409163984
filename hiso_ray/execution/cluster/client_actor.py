"""A worker behind one method."""

from __future__ import annotations

import pickle
import time
import traceback
from dataclasses import replace
from typing import Any

import numpy as np
import ray

from hiso_ray.config import Experiment
from hiso_ray.execution.cluster.shared import SharedTask
from hiso_ray.messages import Behind, Description, TurnFailed, UserError


class ClientActor:
    """Answers messages, so that one place counts, retries and reports them.

    Attributes:
        born: when this process started [ns]: tells an actor that Ray restarted from its
            predecessor.
    """

    def __init__(self, experiment: Experiment, task: SharedTask, partition: Any) -> None:
        import torch

        from hiso_ray.execution.worker import Worker, threads_for

        torch.set_num_threads(threads_for(experiment))
        self.worker = Worker(experiment, task.fetch(), partition)
        self.born = time.time_ns()

    # Asked of an actor that has died, this waits until Ray has restarted it.
    @ray.method(max_task_retries=-1)
    def describe(self) -> tuple[Description, int]:
        return self.worker.describe(), self.born

    def measure(self) -> tuple[int, int] | None:
        """See ``Worker.gpu_bytes``."""
        return self.worker.gpu_bytes()

    def call(self, message: bytes, weights: np.ndarray | None = None) -> bytes:
        """(what it missed, method of the worker, arguments) -> when it was born, and the result.

        The weights that it missed, where methods send them, come from the node's object store.

        Exceptions are answers too: ``Behind`` when it lacks records, ``UserError`` (a non-finite
        loss), and ``TurnFailed`` with the traceback of anything else.
        """
        missed, method, arguments = pickle.loads(message)
        answer: Any
        try:
            self.worker.catch_up(replace(missed, weights=weights))
            answer = getattr(self.worker, method)(*arguments)
        except (Behind, UserError) as error:
            answer = error
        except Exception:
            answer = TurnFailed(traceback.format_exc())
        return pickle.dumps((self.born, answer))
