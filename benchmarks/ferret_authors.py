"""Ferret beside its authors' own code, with the same directions, and as many for each block.

::

    git clone https://github.com/allen4747/Ferret CLONE
    python benchmarks/ferret_authors.py CLONE

Clients train a small network and both sides project, average and rebuild, round after round. What
is forced: their truncated normals are this program's u/√d_b, their numbers of directions per block
n_b are this program's, and of K directions their clients take the first n_b. Blocks, local SGD,
scaling, zeros for what is not sent, mean and step are their own. Prints the largest differences;
exits with 1 if one is above 1e-4. Takes 10 s.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from hiso_ray.method.curvature import Identity
from hiso_ray.method.first_order import local_sgd
from hiso_ray.method.naming import Name
from hiso_ray.method.philox import stream_id
from hiso_ray.method.philox.reference import normals
from hiso_ray.method.projection import Blocks
from hiso_ray.method.scalar import State

ROUNDS, CLIENTS, STEPS, K = 4, 4, 5, 200
LR, SERVER_LR, WEIGHT_DECAY = 0.05, 0.7, 0.01
ALLOWED = 1e-4
Batch = dict[str, Tensor]


class Network(nn.Module):
    """Tensors of many sizes; answers as their code wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(64, 48), nn.Tanh(), nn.Linear(48, 40), nn.Tanh(),
            nn.Linear(40, 10, bias=False), nn.LayerNorm(10),
        )  # fmt: skip

    def forward(self, inputs: Tensor, labels: Tensor) -> Any:
        logits = self.layers(inputs)
        return SimpleNamespace(logits=logits, loss=cross_entropy(logits, labels))


class Authors:
    """Their framework, whose random choices are forced.

    Attributes:
        names: of the directions that it asks for next.
    """

    def __init__(self, checkout: Path) -> None:
        sys.path.insert(0, str(checkout / "optimizers"))
        self.code = importlib.import_module("ferret_optimizer")
        self.names: Iterator[Name] = iter(())

    def framework(self, model: nn.Module) -> Any:
        args = SimpleNamespace(
            lr=LR, slr=SERVER_LR, weight_decay=WEIGHT_DECAY, K=K, n_accum=1, grad_clip=-1.0
        )
        return self.code.FerretFramework(model, args, LR, candidate_seeds=range(K))

    def turn(self, model: nn.Module, batches: list[Batch], counts: list[int], seed: int) -> Tensor:
        """(K, blocks) coordinates of one client; ``model`` is trained."""
        old = {name: weights.detach().clone() for name, weights in model.named_parameters()}
        framework = self.framework(model)
        for batch in batches:
            framework.step(batch, apply_optim_step=True)
        self.names = iter([(seed, b, k) for b, n in enumerate(counts) for k in range(n)])
        with (
            mock.patch.object(self.code, "int", mock.Mock(side_effect=counts), create=True),
            mock.patch.object(self.code, "print", mock.Mock(), create=True),
            mock.patch.object(self.code.random, "sample", lambda among, n: among[:n]),
            mock.patch.object(nn.init, "trunc_normal_", self._forced),
        ):
            return torch.stack(list(framework.project_update(old).values()))

    def step(self, model: nn.Module, mean: Tensor, seed: int) -> None:
        """The server's, on ``model``."""
        framework = self.framework(model)
        with mock.patch.object(nn.init, "trunc_normal_", self._forced):
            for k in range(K):
                self.names = iter([(seed, b, k) for b in range(mean.shape[1])])
                framework.update(seed=k, grad=mean[k])

    def _forced(self, out: Tensor, **_: float) -> Tensor:
        u = torch.from_numpy(normals(stream_id(next(self.names)), 0, out.numel()))
        return out.copy_(u / math.sqrt(out.numel()))


def flat(model: nn.Module) -> Tensor:
    return torch.cat([weights.detach().flatten() for weights in model.parameters()])


def change(model: nn.Module, start: Tensor, batches: list[Batch]) -> Tensor:
    """x_r - x_i of this program's local SGD."""
    shapes = {name: weights.shape for name, weights in model.named_parameters()}

    def gradient(weights: Tensor, step: int) -> tuple[float, Tensor]:
        x = weights.clone().requires_grad_()
        parts = x.split([shape.numel() for shape in shapes.values()])
        named = {n: p.view(s) for p, (n, s) in zip(parts, shapes.items(), strict=True)}
        loss = functional_call(model, named, (), batches[step]).loss
        return loss.item(), torch.autograd.grad(loss, x)[0]

    return local_sgd(gradient, start, steps=STEPS, lr=LR, weight_decay=WEIGHT_DECAY)[0].neg_()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("checkout", type=Path, help="folder of a clone of allen4747/Ferret")
    authors, random = Authors(parser.parse_args().checkout), torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = Network()
    layout = [(name, tuple(weights.shape)) for name, weights in model.named_parameters()]
    ours, state = Blocks(layout, K, torch.device("cpu"), 0), State(flat(model), Identity())
    groups = authors.framework(model).param_groups
    theirs = [sum(weights.numel() for _, weights in group) for group in groups]
    print(f"blocks of {theirs} weights there, {ours.sizes} here")
    worst = {"scalars": 0.0, "weights": 0.0}
    start = flat(model)
    for round_ in range(ROUNDS):
        counts, coordinates, scalars = ours.counts(), [], []
        for _ in range(CLIENTS):
            batches = [
                {"inputs": torch.randn(8, 64, generator=random),
                 "labels": torch.randint(10, (8,), generator=random)}
                for _ in range(STEPS)
            ]  # fmt: skip
            found = authors.turn(copy.deepcopy(model), batches, counts, round_)
            g = ours.project(change(model, state.x, batches), round_)
            # (d_b / n_b) <δ, u/√d_b> there is <δ, u> here
            same = [
                found[:n, b] * n / math.sqrt(d)
                for b, (n, d) in enumerate(zip(counts, ours.sizes, strict=True))
            ]
            error = np.abs(torch.cat(same).numpy() - g).max() / np.abs(g).max()
            worst["scalars"] = max(worst["scalars"], float(error))
            coordinates.append(found)
            scalars.append(g)
        authors.step(model, torch.stack(coordinates).mean(0), round_)
        ours.apply(state, round_, np.mean(scalars, axis=0), SERVER_LR)
        moved = (flat(model) - start).abs().max()
        worst["weights"] = max(worst["weights"], float((flat(model) - state.x).abs().max() / moved))
        print(f"round {round_}: directions per block {counts}")
    for what, error in worst.items():
        print(f"{what}: largest difference {error:.1e} of the largest")
    return int(theirs != ours.sizes or max(worst.values()) > ALLOWED)


if __name__ == "__main__":
    sys.exit(main())
