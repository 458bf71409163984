"""Several actors on one GPU against one actor with the same clients packed on it.

Federations of a model with random weights, 8 clients a round, run on Ray with 1, 2, 4 and 8 actors
that divide a GPU's memory evenly and take turns on the GPU.

    python benchmarks/gpu_sharing.py [--actors 1 2 4 8] [--gpus 0] [--layers N --width N ...]

- a round: the time between two rows of metrics without an evaluation; the median over the rounds
  after the first two, which compile kernels.
- GPU memory: the peak during the rounds, including CUDA's own in each actor, minus what was in use
  before the actors started.

``--gpus 0`` puts the actors on CPUs.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from subjects import random_text

from hiso_ray import Experiment, tasks
from hiso_ray.execution.cluster.session import joined_cluster, ray, run_on_ray
from hiso_ray.execution.cluster.shared import publish
from hiso_ray.execution.contract import Job
from hiso_ray.federation.attendance import Population
from hiso_ray.federation.partition import Partition, split
from hiso_ray.run_folder.metrics_reader import Row
from hiso_ray.tasks.contract import Prepared

CLIENTS, COHORT = 40, 8
LENGTH = 32  # tokens
WARM_UP = 2  # rounds
TITLES = ("actors", "GPU share", "seconds a round", "clients a second", "÷ first row",
          "GPU memory [GiB]")  # fmt: skip


@dataclass
class Watch:
    """Records the seconds of rounds and the GPU memory in use.

    Attributes:
        before: bytes in use before there were actors.
        most: peak bytes in use.
    """

    gpu: bool
    before: int = 0
    most: int = 0
    rows: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.before = self.in_use()

    def in_use(self) -> int:
        if not self.gpu:
            return 0
        free, total = torch.cuda.mem_get_info()
        return total - free

    def row(self, row: Row) -> None:
        self.rows.append(row)
        self.most = max(self.most, self.in_use())

    def seconds(self) -> float:
        return statistics.median(
            after["seconds"] - before["seconds"]
            for before, after in itertools.pairwise(self.rows[WARM_UP:])
            if after["eval_loss"] is None
        )


def made_up(given: argparse.Namespace) -> tuple[Experiment, Prepared, Partition]:
    from transformers import OPTConfig

    config = OPTConfig(
        vocab_size=given.vocabulary,
        hidden_size=given.width,
        word_embed_proj_dim=given.width,
        ffn_dim=4 * given.width,
        num_hidden_layers=given.layers,
        num_attention_heads=given.heads,
    )
    experiment = Experiment().changed(  # P = 5, τ = 1
        **{
            "task.name": "sst2",
            "task.max_length": LENGTH,
            "task.batch_size": given.batch_size,
            "task.dtype": given.dtype,
            "federation.num_clients": CLIENTS,
            "federation.clients_per_round": COHORT,
            "federation.partition": "iid",
            "federation.rounds": given.rounds,
            "eval.every": given.rounds,  # before the first round and after the last
            "resources.snapshot_every": 0,
        }
    )
    prepared = random_text(config.to_dict(), CLIENTS * given.batch_size, LENGTH)
    return tasks.resolve(experiment), prepared, split(experiment.federation, prepared.labels, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--actors", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--gpus", type=int, choices=(0, 1), default=1)
    parser.add_argument("--rounds", type=int, default=8, help=f"at least {WARM_UP + 3}")
    parser.add_argument("--layers", type=int, default=12, help="12, 768, 12: OPT-125M")
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--vocabulary", type=int, default=50272)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--dtype", default="bfloat16")
    given = parser.parse_args()
    if given.rounds < WARM_UP + 3:
        parser.error(f"--rounds {given.rounds}: give {WARM_UP + 3} at least")
    if given.gpus and not torch.cuda.is_available():
        parser.error("torch sees no GPU here; try it on CPUs with --gpus 0")
    experiment, prepared, partition = made_up(given)
    population = Population(np.diff(partition.offsets), None)
    where = torch.cuda.get_device_name() if given.gpus else "CPUs"
    print(f"{prepared.x0.size:,} weights, {given.dtype}, batches of {given.batch_size}, {where}\n")
    print("| " + " | ".join(TITLES) + " |\n" + "|---" * len(TITLES) + "|", flush=True)
    first, weights = None, set()
    with joined_cluster():
        task = publish(prepared)
        cpus = min(1.0, ray.cluster_resources()["CPU"] / max(given.actors))
        for actors in given.actors:
            part = given.gpus * math.floor(1e4 / actors) / 1e4
            e = experiment.changed(
                **{
                    "resources.cpus_per_client": cpus,
                    "resources.gpus_per_client": part,
                    "resources.max_actors": actors,
                }
            )
            watch = Watch(bool(given.gpus))
            with tempfile.TemporaryDirectory() as name:
                job = Job(e, Path(name), {}, population, "")
                summary = run_on_ray(job, prepared, partition, watch.row, lambda _: None, task)
            weights.add(summary["model_sha256"])
            assert summary["actors"] == actors, summary["actors"]
            seconds = watch.seconds()
            first = first or seconds
            print(
                f"| {actors} | {part:g} | {seconds:.3f} | {COHORT / seconds:.1f} "
                f"| {first / seconds:.2f} | {(watch.most - watch.before) / 2**30:.1f} |",
                flush=True,
            )
    print(f"\nthe weights at the end: {'the same' if len(weights) == 1 else 'DIFFERENT'}")


if __name__ == "__main__":
    main()
