"""Every weight vector at once against one by one: the networks, the losses, the quadratic."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hiso_ray import Experiment, tasks
from hiso_ray.tasks import quadratic
from hiso_ray.tasks.contract import views
from hiso_ray.tasks.flat.batch import IGNORED
from hiso_ray.tasks.images import stacked
from hiso_ray.tasks.images.image_sets import DIGITS, DOWNLOADED, ImageSet
from hiso_ray.tasks.images.networks import initial_weights, layout_of, network

pytestmark = pytest.mark.usefixtures("one_thread")

K, N = 5, 7
NETWORKS = {
    "digits": ("mlp-32", DIGITS),
    "cifar10 mlp": ("mlp-16", DOWNLOADED["cifar10"]),
    "mnist": ("cnn", DOWNLOADED["mnist"]),
    "cifar10": ("cnn", DOWNLOADED["cifar10"]),
    "fashion_mnist": ("cnn", DOWNLOADED["fashion_mnist"]),
}


def case(name: str, own: bool) -> tuple[nn.Sequential, ImageSet, Tensor, Tensor]:
    """A network, its images' set, K weight vectors that differ much, and N images each."""
    model, images = NETWORKS[name]
    module = network(model, images).requires_grad_(False)
    rng = np.random.default_rng(0)
    weights = np.stack([initial_weights(layout_of(module), rng) for _ in range(K)])
    inputs = rng.normal(size=(K, N, *images.shape) if own else (N, *images.shape))
    return module, images, torch.from_numpy(weights), torch.from_numpy(inputs).float()


def one_by_one(module: nn.Module, weights: Tensor, inputs: Tensor, own: bool) -> Tensor:
    out = []
    module.to(weights.dtype)
    for at, vector in enumerate(weights):
        module.load_state_dict(views(vector, layout_of(module)))
        out.append(module(inputs[at] if own else inputs))
    return torch.stack(out)


def relative(found: Tensor, expected: Tensor) -> float:
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    found, expected = found.double(), expected.double()
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("own", [False, True], ids=["shared", "own"])
@pytest.mark.parametrize("name", NETWORKS)
@torch.inference_mode()
def test_logits_are_the_networks(name: str, own: bool) -> None:
    module, images, weights, inputs = case(name, own)
    network_at_all = stacked.Stacked(module, images.shape)
    expected = one_by_one(module, weights, inputs, own)
    before = weights.clone(), inputs.clone()
    assert relative(network_at_all.logits(weights, inputs), expected) < 1e-5
    assert torch.equal(weights, before[0])
    assert torch.equal(inputs, before[1])
    # in bfloat16 no order of the sums is right; both must be as near to the truth
    half = network_at_all.logits(weights.bfloat16(), inputs.bfloat16())
    theirs = one_by_one(module, weights.bfloat16(), inputs.bfloat16(), own)
    assert relative(half, theirs) < 2e-2
    assert relative(half.float(), expected) < 1.5 * relative(theirs.float(), expected)


@pytest.mark.parametrize("own", [False, True], ids=["shared", "own"])
@pytest.mark.parametrize("name", ["digits", "cifar10"])
@torch.inference_mode()
def test_parts_of_the_examples_are_put_together(
    name: str, own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, images, weights, inputs = case(name, own)
    widest = {"digits": 32, "cifar10": 6 * 28 * 28}[name]
    monkeypatch.setattr(stacked, "ON_CPU", 3 * K * widest)
    network_at_all = stacked.Stacked(module, images.shape)
    sizes, classes = [], network_at_all._classes

    def watched(products: list[Tensor], rows: Tensor) -> Tensor:
        sizes.append(rows.shape[1])
        return classes(products, rows)

    monkeypatch.setattr(network_at_all, "_classes", watched)
    expected = one_by_one(module, weights, inputs, own)
    assert relative(network_at_all.logits(weights, inputs), expected) < 1e-5
    assert sizes == [3, 3, 1]


def test_where_it_pays() -> None:
    assert [stacked.pays(network(*NETWORKS[name])) for name in NETWORKS] == [True] * 4 + [False]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("own", [False, True], ids=["shared", "own"])
def test_losses_are_cross_entropies_in_float32(own: bool, dtype: torch.dtype) -> None:
    rng = torch.Generator().manual_seed(0)
    logits = (4 * torch.randn(K, N, 10, generator=rng)).to(dtype)
    labels = torch.randint(10, (K, N) if own else (N,), generator=rng)
    labels[..., 2] = IGNORED
    found = stacked.losses(logits, labels)
    assert found.dtype == torch.float32
    assert not found[:, 2].any()
    for k, n in np.ndindex(K, N):
        label = labels[k, n] if own else labels[n]
        if n != 2:
            expected = functional.cross_entropy(logits[k, n].double(), label)
            assert float(found[k, n]) == pytest.approx(float(expected), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("held", [quadratic.STACKED, 2 * N * 64, 1], ids=["all", "two", "one"])
@pytest.mark.parametrize("own", [False, True], ids=["shared", "own"])
def test_quadratic_losses_have_the_bits_of_one_by_one(
    experiment: Callable[..., Experiment], own: bool, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    e = tasks.resolve(experiment(**{"task.name": "quadratic", "task.model": "diagonal-64"}))
    prepared = tasks.prepare(e)
    task = quadratic.Quadratic(e.task, prepared, torch.device("cpu"))
    rng = np.random.default_rng(0)
    z = rng.normal(size=(K, 64)).astype(np.float32)
    weights = torch.from_numpy(prepared.x0 + 1e-3 * z)
    targets = task.batch(rng.integers(256, size=(K, N) if own else N)).targets
    monkeypatch.setattr(quadratic, "STACKED", held)
    found = task.stacked_losses(weights, targets)
    assert found.shape == (K, N)
    for k, vector in enumerate(weights):
        batches = [
            quadratic.Targets(row.unsqueeze(0), (1,)) for row in (targets[k] if own else targets)
        ]
        assert found[k].double().tolist() == task.losses(vector, batches).tolist()


def test_quadratic_differences_survive_the_division_by_mu(
    experiment: Callable[..., Experiment],
) -> None:
    e = tasks.resolve(experiment(**{"task.name": "quadratic", "task.model": "diagonal-1024"}))
    prepared = tasks.prepare(e)
    task = quadratic.Quadratic(e.task, prepared, torch.device("cpu"))
    z = np.random.default_rng(0).normal(size=(K, 1024)).astype(np.float32)
    z[0] = 0
    weights = torch.from_numpy(prepared.x0 + 1e-3 * z)
    targets = task.batch(np.arange(64)).targets
    exact = (
        0.5
        * (weights.double().unsqueeze(1) - targets.double()).square()
        @ (task.curvature.double())
    )
    found = task.stacked_losses(weights, targets).double()
    slopes, expected = ((f[1:] - f[0]).mean(1) / 1e-3 for f in (found, exact))
    # expanded into products, the error is some ten times this
    assert float((slopes - expected).abs().max() / expected.abs().mean()) < 1e-3
