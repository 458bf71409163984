"""The client actor: a worker behind one remote method."""

from __future__ import annotations

import pickle
import time
import traceback
from dataclasses import replace
from typing import Any

import numpy as np
import ray

from hiso_ray.config import Experiment
from hiso_ray.errors import Behind, TurnFailed, UserError
from hiso_ray.execution.cluster.cause_of_death import Process
from hiso_ray.execution.cluster.shared import SharedTask
from hiso_ray.messages import Description


def told(error: Exception) -> UserError | None:
    """The ``UserError`` raised in an actor, if that is the cause of Ray's ``error``."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, UserError) else None


class ClientActor:
    """Answers messages; the fleet counts, retries and reports them in one place.

    Attributes:
        refused: why the worker could not be built, if so; Ray would bury it in a traceback.
        born: when this process started [ns]: distinguishes a restarted actor from its predecessor.
    """

    def __init__(self, experiment: Experiment, task: SharedTask, partition: Any) -> None:
        import torch

        from hiso_ray.execution.worker import Worker
        from hiso_ray.tasks.threads import threads_for

        torch.set_num_threads(threads_for(experiment))
        self.refused: UserError | None = None
        try:
            self.worker = Worker(experiment, task.fetch(), partition)
        except UserError as error:
            self.refused = error
        self.born = time.time_ns()

    # If the actor has died, this call waits until Ray has restarted it.
    @ray.method(max_task_retries=-1)
    def describe(self) -> tuple[Description, int, Process]:
        """(what it computes with, ``born``, its process).

        Raises:
            UserError: the worker could not be built.
        """
        if self.refused is not None:
            raise self.refused
        return self.worker.describe(), self.born, Process.here()

    def gpu_bytes(self) -> tuple[int, int] | None:
        """See ``Worker.gpu_bytes``.

        Raises:
            UserError: the worker could not be built, or the turn failed.
        """
        if self.refused is not None:
            raise self.refused
        return self.worker.gpu_bytes()

    def call(self, message: bytes, weights: np.ndarray | None = None) -> bytes:
        """Pickled (``Missed``, method of the worker, arguments) -> pickled (``born``, result).

        For methods that send weights, ``weights`` comes from the node's object store.

        Exceptions are returned as results: ``Behind`` when records are missing, ``UserError`` (a
        non-finite loss, a full GPU), and ``TurnFailed`` with the traceback of anything else.
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
