"""Forward passes that reuse the states of frozen layers, against whole ones: seconds and memory.

    python benchmarks/frozen_layers.py SST2_FOLDER MODEL --lowest 12

LoRA on the layers from ``--lowest`` up; prompts of several clients in one forward pass, one thread.
Seconds are CPU time, medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from hiso_ray import Experiment, tasks
from hiso_ray.tasks.pretrained import pretrained

ADAPTED = ("q_proj", "v_proj")


def build(args: argparse.Namespace, frozen_layers: str) -> tuple[Any, torch.Tensor, Any]:
    """The task, x_0 in the dtype of the forward passes, and what it was built from."""
    config = pretrained.configuration(args.model)
    upper = range(args.lowest, config["num_hidden_layers"])
    e = tasks.resolve(
        Experiment().changed(
            **{
                "task.name": "sst2", "task.model": args.model, "task.data": args.data,
                "task.dtype": args.dtype, "task.lora.r": 8, "task.frozen_layers": frozen_layers,
                "task.lora.target_modules": ",".join(
                    f"layers.{i}.self_attn.{name}" for i in upper for name in ADAPTED
                ),
            }
        )
    )  # fmt: skip
    prepared = tasks.prepare(e)
    x = torch.tensor(prepared.x0).to(getattr(torch, args.dtype))
    return tasks.build(e, prepared, torch.device("cpu")), x, prepared


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("model")
    parser.add_argument("--lowest", type=int, required=True, help="lowest layer that is trained")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--examples", type=int, default=16, help="of a client")
    parser.add_argument("--repetitions", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(1)
    whole, x, prepared = build(args, "recompute")
    apart, _, kept = build(args, "once")
    together, *_ = build(args, "per_batch")
    print("\n".join(note for note in kept.notes if "frozen" in note))
    seconds: dict[str, list[float]] = {}

    def timed(what: str, compute: Callable[[], Any]) -> Any:
        start = time.process_time()
        found = compute()
        seconds.setdefault(what, []).append(time.process_time() - start)
        return found

    rng, off = np.random.default_rng(0), 0.0
    for _ in range(args.repetitions):
        apart.keep_states(2**40)  # empties the store of states
        clients = rng.choice(len(prepared.labels), (args.clients, args.examples), replace=False)
        batch = whole.batch(*clients)
        wanted = timed("whole forward pass", lambda batch=batch: whole.losses(x, [batch]))
        for what, task in (("once", apart), ("per_batch", together)):
            batch = timed(
                f"states, {what}", lambda clients=clients, task=task: task.batch(*clients)
            )
            found = timed(
                "forward pass above them", lambda batch=batch, task=task: task.losses(x, [batch])
            )
            off = max(off, float(np.abs(found / wanted - 1).max()))
    for what, values in seconds.items():
        print(f"{what}: {statistics.median(values):.3f} s ({min(values):.3f}–{max(values):.3f})")
    print(f"losses differ by {off:.1e} at most")


if __name__ == "__main__":
    main()
