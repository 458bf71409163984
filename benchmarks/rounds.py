"""Rounds of one worker, and the forward passes they contain. Imported by the benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import subjects
import torch
from plain import Perceptron, Transformer
from torch import Tensor

from hiso_ray import Experiment, tasks
from hiso_ray.client.turns import take_turns
from hiso_ray.execution.worker import Worker
from hiso_ray.federation.partition import split
from hiso_ray.federation.sampling import cohort, minibatch
from hiso_ray.messages import Missed
from hiso_ray.record import Record
from hiso_ray.seeds import step_seeds
from hiso_ray.server.combine import combine, mean_loss, received
from hiso_ray.server.work_units import work_units
from hiso_ray.tasks.contract import Prepared

CLIENTS = 40  # of the federation
Plain = Transformer | Perceptron


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Attributes:
        clients: m, per round.
        batch: examples per minibatch.
        length: tokens per prompt; None for SST-2.
        probe_weights: ``whole`` or ``layer``.
    """

    model: str
    device: str
    data: Path = subjects.SST2
    tokenizer: Path = subjects.TOKENIZER
    dtype: str = "float32"
    clients: int = 8
    batch: int = 16
    length: int | None = None
    probe_weights: str = "whole"

    @property
    def title(self) -> str:
        """The model, and the departures from the defaults."""
        usual = Setting(self.model, self.device)
        words = {
            "dtype": self.dtype,
            "clients": f"m = {self.clients}",
            "batch": f"batch {self.batch}",
            "length": f"{self.length} tokens",
            "probe_weights": "by layer",
        }
        different = (w for f, w in words.items() if getattr(self, f) != getattr(usual, f))
        return ", ".join([Path(self.model).name, *different])

    @property
    def absent(self) -> str:
        """What is needed and missing."""
        data = None if self.length else self.data
        return "" if self.model == "digits" else subjects.absent(self.model, data, self.tokenizer)

    def experiment(self) -> Experiment:
        digits = self.model == "digits"
        language = {"task.max_length": self.length} if self.length else {}
        fields = {
            "federation.num_clients": CLIENTS,
            "federation.clients_per_round": self.clients,
            "federation.partition": "iid",
            "federation.min_examples": self.batch,
            "task.name": "digits" if digits else "sst2",
            "task.batch_size": self.batch,
            "task.train_examples": "auto" if digits else CLIENTS * max(64, self.batch),
            "task.dtype": self.dtype,
            "resources.probe_weights": self.probe_weights,
            "resources.gpus_per_client": 1.0 if self.device == "cuda" else 0,
            **({} if digits else language),
        }
        return tasks.resolve(Experiment().changed(**fields))  # P = 5, τ = 1

    def prepared(self) -> Prepared:
        if self.model == "digits":
            return tasks.prepare(self.experiment())
        if self.length:
            config = subjects.config_of(self.model)
            return subjects.random_text(config, CLIENTS * self.batch, self.length)
        return subjects.sentences(self.model, self.experiment(), self.data, self.tokenizer)


class Bench:
    """One worker in the middle of a run.

    Attributes:
        experiment: its cohort size may change between rounds.
    """

    def __init__(self, experiment: Experiment, prepared: Prepared) -> None:
        self.experiment, self.prepared = experiment, prepared
        self.partition = split(experiment.federation, prepared.labels, 0)
        self.worker = Worker(experiment, prepared, self.partition)
        self.records: list[Record] = []

    @property
    def device(self) -> torch.device:
        return self.worker.replica.device

    def cohort(self) -> list[int]:
        sizes = np.diff(self.partition.offsets)
        return cohort(0, len(self.records), self.experiment.federation, sizes).tolist()

    def examples(self, client: int) -> np.ndarray:
        """A client's minibatch of the next round."""
        size, own = self.experiment.task.batch_size, self.partition.of(client)
        return minibatch(0, len(self.records), client, 0, own, size)

    def forwards(self) -> Callable[[], None]:
        """Only the next round's losses, as the round computes them, all at the same weights."""
        replica, points = self.worker.replica, self.experiment.method.num_perturbations + 1
        units = work_units(self.experiment, self.cohort())
        batches = [replica.task.batch(*map(self.examples, unit)) for unit in units]
        several = replica.task.several
        if several is not None and several.at_once >= points:
            rows = replica.state.x.to(replica.buffer.dtype).repeat(points, 1)
            return lambda: several.losses_at(rows, batches)
        weights = replica.forward_weights()

        def all_losses() -> None:
            for _ in range(points):
                replica.task.losses(weights, batches)

        return all_losses

    def plain_forwards(self, plain: Plain, points: int | None = None) -> Callable[[], None]:
        """The (P+1)·m forward passes of plain torch for the next round's losses.

        Args:
            points: replaces P+1.
        """
        points = points or self.experiment.method.num_perturbations + 1
        examples = list(map(self.examples, self.cohort()))
        if isinstance(plain, Transformer):
            padded = [plain.batch("train", some) for some in examples]
            once = partial(plain.losses, padded, "last position")
        else:
            made = [self.worker.replica.task.batch(some) for some in examples]
            once = partial(plain.losses, [(b.inputs.flatten(1), b.labels) for b in made])

        def all_losses() -> None:
            for _ in range(points):
                once()

        return all_losses

    def plain(self) -> Plain:
        """Plain torch; transformers at this worker's weights."""
        dtype = getattr(torch, self.experiment.task.dtype)
        if "model" not in self.prepared.spec:
            return Perceptron(self.prepared.spec["layout"], self.device, dtype)
        weights = self.worker.replica.forward_weights()
        flat = weights if isinstance(weights, Tensor) else weights.whole.to(dtype)
        return Transformer(self.prepared, flat)

    def catch_up(self) -> None:
        self.worker.catch_up(Missed(len(self.records), self.records[-1:]))

    def turns(self) -> None:
        method, r = self.experiment.method, len(self.records)
        clients, seeds = self.cohort(), step_seeds(0, r, 1)
        units = work_units(self.experiment, clients)
        turns = take_turns(self.worker.replica, self.partition, units, seeds)
        sizes = np.diff(self.partition.offsets)[clients]
        scalars = combine(self.experiment, r, received(self.experiment, r, turns), sizes)
        means, eps, loss = tuple(map(float, scalars[0, :, 0])), method.hessian_eps, mean_loss(turns)
        self.records.append(
            Record(r, tuple(clients), seeds, (means,), 1e-6, method.mu, 0.95, eps, loss)
        )

    def round(self) -> None:
        self.catch_up()
        self.turns()
