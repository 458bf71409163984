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
from hiso_ray.errors import Behind, TurnFailed, UserError
from hiso_ray.execution.cluster.death import Process
from hiso_ray.execution.cluster.shared import SharedTask
from hiso_ray.messages import Description


def told(error: Exception) -> UserError | None:
    """What an actor had to tell the user, if that is what Ray raises ``error`` for."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, UserError) else None


class ClientActor:
    """Answers messages, so that one place counts, retries and reports them.

    Attributes:
        refused: why there is no worker, if there is none; Ray would bury it in a traceback.
        born: when this process started [ns]: tells an actor that Ray restarted from its
            predecessor.
    """

    def __init__(self, experiment: Experiment, task: SharedTask, partition: Any) -> None:
        import torch

        from hiso_ray.execution.worker import Worker, threads_for

        torch.set_num_threads(threads_for(experiment))
        self.refused: UserError | None = None
        try:
            self.worker = Worker(experiment, task.fetch(), partition)
        except UserError as error:
            self.refused = error
        self.born = time.time_ns()

    # Asked of an actor that has died, this waits until Ray has restarted it.
    @ray.method(max_task_retries=-1)
    def describe(self) -> tuple[Description, int, Process]:
        """What it computes with, when it was born, and which process it is.

        Raises:
            UserError: the worker could not be made.
        """
        if self.refused is not None:
            raise self.refused
        return self.worker.describe(), self.born, Process.here()

    def measure(self) -> tuple[int, int] | None:
        """See ``Worker.gpu_bytes``.

        Raises:
            UserError: the worker could not be made, or the turn not taken.
        """
        if self.refused is not None:
            raise self.refused
        return self.worker.gpu_bytes()

    def call(self, message: bytes, weights: np.ndarray | None = None) -> bytes:
        """(what it missed, method of the worker, arguments) -> when it was born, and the result.

        The weights that it missed, where methods send them, come from the node's object store.

        Exceptions are answers too: ``Behind`` when it lacks records, ``UserError`` (a non-finite
        loss, a full GPU), and ``TurnFailed`` with the traceback of anything else.
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
