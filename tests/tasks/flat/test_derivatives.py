"""Derivatives against the same module trained the plain way in double precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hiso_ray import Experiment, tasks
from hiso_ray.errors import UserError
from hiso_ray.tasks.flat import derivatives

CPU = torch.device("cpu")
CASES: dict[str, dict[str, Any]] = {
    "digits": {},
    "opt": {"task.name": "sst2"},
    "opt, patterns": {"task.name": "sst2", "task.trainable": "*layers.1.*,*norm*"},
    "opt, lora": {"task.name": "sst2", "task.lora.r": 2},
    "opt, mask": {"task.name": "sst2", "task.sparse_fraction": 0.1},
}
EXAMPLES = np.arange(5)

Make = Callable[..., Experiment]


class Plain:
    """Loss and gradient of the task's own module in float64: weights copied in, autograd.grad over
    its parameters; no flat leaf, no functional call."""

    def __init__(self, task: Any, prepared: Any) -> None:
        self.task, self.batch = task, task.batch(EXAMPLES)
        self.dense = prepared.spec.get("dense", task.layout)
        self.index = prepared.arrays.get("mask/index", slice(None))
        self.base = torch.tensor(prepared.arrays.get("mask/base", prepared.x0)).double()
        task.losses(torch.tensor(prepared.x0), [self.batch])  # gives the parameters their storage
        task.module.double().requires_grad_(True)

    def __call__(self, x: Tensor) -> tuple[float, Tensor]:
        self.base[self.index] = x.double()
        named = dict(self.task.module.named_parameters())
        parameters = [named[name] for name, _ in self.dense]
        parts = self.base.split([p.numel() for p in parameters])
        with torch.no_grad():
            for parameter, part in zip(parameters, parts, strict=True):
                parameter.copy_(part.view_as(parameter))
        inputs = self.batch.inputs
        inputs = inputs.double() if isinstance(inputs, Tensor) else inputs
        loss = nn.functional.cross_entropy(self.task.logits(inputs), self.batch.labels)
        slopes = torch.autograd.grad(loss, parameters)
        return float(loss.detach()), torch.cat([s.flatten() for s in slopes])[self.index]


def build(experiment: Experiment) -> tuple[Any, Any]:
    experiment = tasks.resolve(experiment)
    prepared = tasks.prepare(experiment)
    return tasks.build(experiment, prepared, CPU), prepared


@pytest.fixture(params=CASES)
def make(request: pytest.FixtureRequest, experiment: Make, language: Make) -> Make:
    dotted = CASES[request.param]
    fixture = language if dotted else experiment
    return lambda **more: fixture(**(dotted | more))


def normal(like: np.ndarray, seed: int) -> Tensor:
    return torch.randn(like.size, generator=torch.Generator().manual_seed(seed))


def point(prepared: Any) -> Tensor:
    """Away from x_0, where LoRA's B is zero and biases are."""
    return torch.tensor(prepared.x0) + 0.05 * normal(prepared.x0, 1)


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted).norm() / wanted.norm())


def test_gradient_slopes_and_hessian_are_those_of_plain_autograd_in_double(make: Make) -> None:
    task, prepared = build(make())
    plain = Plain(*build(make()))
    x, z = point(prepared), normal(prepared.x0, 2)
    batches = [task.batch(EXAMPLES), task.batch(np.arange(20, 23))]
    wanted_loss, wanted = plain(x)

    loss, gradient = task.gradient(x, batches[0])
    assert loss == pytest.approx(wanted_loss, rel=1e-6)
    assert loss == pytest.approx(task.losses(x, batches)[0], rel=1e-6)
    assert (gradient.dtype, gradient.shape) == (torch.float32, x.shape)
    assert relative(gradient, wanted) < 1e-5

    slopes, losses = task.slopes(x, z, batches)
    assert (slopes.dtype, losses.dtype, slopes.shape) == (np.float64, np.float64, (2,))
    assert losses == pytest.approx(task.losses(x, batches), rel=1e-6)
    size = float(wanted.norm() * z.norm())
    assert slopes[0] == pytest.approx(float(wanted @ z.double()), abs=1e-6 * size)
    other = float(task.gradient(x, batches[1])[1] @ z)
    assert slopes[1] == pytest.approx(other, abs=1e-6 * size)

    product = task.hessian_vector(x, z, batches[0])
    step = 1e-7 * z.double()  # small enough to cross no kink of a ReLU
    difference = (plain(x.double() + step)[1] - plain(x.double() - step)[1]) / 2e-7
    assert (product.dtype, product.shape) == (torch.float32, x.shape)
    assert relative(product, difference) < 1e-4


def test_the_slope_is_what_finite_differences_of_losses_approach(make: Make) -> None:
    task, prepared = build(make())
    x, batch = point(prepared), [task.batch(EXAMPLES)]
    gradient = task.gradient(x, batch[0])[1]
    z = gradient / gradient.norm()
    mu = 1e-4
    central = (task.losses(x + mu * z, batch) - task.losses(x - mu * z, batch)) / (2 * mu)
    assert task.slopes(x, z, batch)[0] == pytest.approx(central, rel=0.02)


def test_derivatives_are_pure(make: Make) -> None:
    task, prepared = build(make())
    x, z, batch = point(prepared), normal(prepared.x0, 2), task.batch(EXAMPLES)
    before = task.losses(x, [batch])
    copies = x.clone(), z.clone()
    masters = {name: p.data_ptr() for name, p in task.module.named_parameters()}

    def everything() -> list[Any]:
        loss, gradient = task.gradient(x, batch)
        slopes, losses = task.slopes(x, z, [batch])
        product = task.hessian_vector(x, z, batch)
        assert not any(t.requires_grad for t in (gradient, product))
        return [loss, gradient.tolist(), slopes.tolist(), losses.tolist(), product.tolist()]

    first = everything()
    task.losses(x + z, [batch])  # another point in between, bound to the module
    task.score(x + z, 0)
    assert everything() == first
    assert torch.equal(x, copies[0])
    assert torch.equal(z, copies[1])
    assert not any(t.requires_grad for t in (x, z))
    assert task.losses(x, [batch]) == before
    assert not any(p.requires_grad or p.grad is not None for p in task.module.parameters())
    if task._mask is None:  # bound again to the same weights, in the same places
        assert {name: p.data_ptr() for name, p in task.module.named_parameters()} == masters


def test_inference_mode_neither_stops_them_nor_leaks_into_them(make: Make) -> None:
    task, prepared = build(make())
    x, z, batch = point(prepared), normal(prepared.x0, 2), task.batch(EXAMPLES)
    loss, gradient = task.gradient(x, batch)
    with torch.inference_mode():
        inside, tangent, theirs = x.clone(), z.clone(), task.batch(EXAMPLES)
        theirs = theirs._replace(labels=theirs.labels.clone())
        assert inside.is_inference()
        assert theirs.labels.is_inference()
        found = task.gradient(inside, theirs)
        slope = task.slopes(inside, tangent, [theirs])[0]
        product = task.hessian_vector(inside, tangent, theirs)
    assert found[0] == loss
    assert torch.equal(found[1], gradient)
    assert not found[1].is_inference()
    assert slope == task.slopes(x, z, [batch])[0]
    assert torch.equal(product, task.hessian_vector(x, z, batch))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_forward_from_float32_masters(make: Make, dtype: str) -> None:
    half, prepared = build(make(**{"task.dtype": dtype}))
    full, _ = build(make())
    x = point(prepared)
    loss, gradient = half.gradient(x, half.batch(EXAMPLES))
    rounded = x.to(getattr(torch, dtype))
    assert loss == pytest.approx(half.losses(rounded, [half.batch(EXAMPLES)])[0], rel=1e-6)
    assert gradient.dtype == torch.float32
    exact = full.gradient(x, full.batch(EXAMPLES))[1]
    assert relative(gradient, exact.double()) < 0.1  # rounding may close a ReLU


def test_tied_embeddings_get_both_their_gradients(language: Make) -> None:
    # By the tokens read, "a dull film , ...", and by the logits of " bad" and " good".
    task, prepared = build(language())
    batch = task.batch(np.array([0]))
    gradient = task.gradient(torch.tensor(prepared.x0), batch)[1]
    named = tasks.contract.views(gradient, task.layout)
    (rows,) = (v for name, v in named.items() if name.endswith("embed_tokens.weight"))
    moved = set(rows.abs().sum(1).nonzero().flatten().tolist())
    read = set(batch.inputs["input_ids"].flatten().tolist()) - {0}  # 0 pads
    assert moved == read | set(prepared.spec["answers"])
    assert not read & set(prepared.spec["answers"])


def test_quadratic_is_exact(experiment: Make) -> None:
    task, prepared = build(experiment(**{"task.name": "quadratic", "task.model": "diagonal-3"}))
    x, z, batch = (
        torch.tensor([1.0, -2.0, 0.5]),
        torch.tensor([1.0, 2.0, 3.0]),
        task.batch(EXAMPLES),
    )
    curvature = torch.tensor(prepared.arrays["curvature"])
    mean = torch.tensor(prepared.arrays["targets"][EXAMPLES]).mean(0)
    loss, gradient = task.gradient(x, batch)
    assert loss == task.losses(x, [batch])[0]
    assert torch.allclose(gradient, curvature * (x - mean))
    slopes, losses = task.slopes(x, z, [batch, task.batch(np.arange(2))])
    assert slopes[0] == pytest.approx(float(gradient @ z), rel=1e-6)
    assert losses[0] == loss
    assert torch.equal(task.hessian_vector(x, z, batch), curvature * z)


# what has no derivative


def test_a_loss_without_gradient_is_an_error_in_words(
    experiment: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, prepared = build(experiment())
    logits = task.logits
    monkeypatch.setattr(task, "logits", lambda inputs: logits(inputs).detach())
    x, batch = point(prepared), task.batch(EXAMPLES)
    words = "the loss of task.model mlp-8 has no gradient .* use a zeroth-order method"
    with pytest.raises(UserError, match=words):
        task.gradient(x, batch)
    with pytest.raises(UserError, match=words):
        task.slopes(x, x, [batch])
    with pytest.raises(UserError, match=words):
        task.hessian_vector(x, x, batch)
    assert np.isfinite(task.losses(x, [batch])).all()


def test_an_operation_without_the_derivative_is_named() -> None:
    def loss(x: Tensor) -> Tensor:
        return torch.igamma(x, torch.ones(3)).sum()

    for ask in (
        lambda: derivatives.gradient(loss, torch.ones(3), "M"),
        lambda: derivatives.slopes([loss], torch.ones(3), torch.ones(3), "M"),
    ):
        with pytest.raises(UserError, match=r"task\.model M has no gradient .*igamma"):
            ask()


def test_a_linear_loss_has_no_curvature() -> None:
    found = derivatives.hessian_vector(lambda x: 2 * x.sum(), torch.ones(3), torch.ones(3), "M")
    assert found.tolist() == [0, 0, 0]


def test_convolutions_and_pools_have_every_derivative() -> None:
    images = normal(np.empty(2 * 64), 3).view(2, 1, 8, 8)

    def loss(x: Tensor) -> Tensor:
        kernel, head = x[:18].view(2, 1, 3, 3), x[18:].view(2, 3)
        pooled = nn.functional.max_pool2d(nn.functional.conv2d(images, kernel), 2).mean((2, 3))
        return nn.functional.cross_entropy(pooled @ head, torch.tensor([0, 2]))

    x, z = normal(np.empty(24), 1), normal(np.empty(24), 2)
    value, gradient = derivatives.gradient(loss, x, "M")
    slopes, losses = derivatives.slopes([loss], x, z, "M")
    assert losses == pytest.approx([value], rel=1e-6)
    assert slopes == pytest.approx([float(gradient @ z)], rel=1e-5)
    hessian = torch.func.hessian(loss)(x)
    assert torch.allclose(derivatives.hessian_vector(loss, x, z, "M"), hessian @ z, atol=1e-5)
