"""Derivatives of a loss of one flat weight vector: gradient, directional derivative,
Hessian-vector product.

Pure functions of ``loss``, which maps float32 master weights (d,) to a float32 scalar (for slopes,
to any number of them) and casts to the dtype of the forward passes inside, so gradients are
float32. With a half-precision dtype all passes are in half precision: bfloat16 slopes are accurate
to a few per cent; float16 flushes gradients below 6e-8 to zero, and its forward mode and second
backward overflow to nan in layer norms whose input is small (rstd³ > 65504). Use task.dtype float32
for results that serve as evidence.

Fused attention kernels have a backward pass, but neither forward mode nor a second backward, and on
CUDA their backward sums in no fixed order. The plain kernel (``SDPBackend.MATH``) has all three and
is deterministic; unlike the fused ones, it stores the (heads, length, length) scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from hiso_ray.errors import UserError

Loss = Callable[[Tensor], Tensor]


def gradient(loss: Loss, weights: Tensor, model: str) -> tuple[float, Tensor]:
    """F(x) and ∇F(x), by one forward and one backward pass.

    Args:
        weights: (d,) float32, not written to.
        model: what the error calls the model.

    Returns:
        The float32 loss as a float, and (d,) float32.

    Raises:
        UserError: the loss does not depend on the weights in a differentiable way.
    """
    with _graph(model), nullcontext() if weights.device.type == "cpu" else _plain_attention():
        x = _leaf(weights)
        value = _reached(loss(x), model)
        (slope,) = torch.autograd.grad(value, x)
    return float(value.detach()), slope


def slopes(
    losses: Sequence[Loss], weights: Tensor, direction: Tensor, model: str
) -> tuple[np.ndarray, np.ndarray]:
    """Exact ⟨∇F, z⟩, without a finite difference, and F(x) of several losses at the same weights.

    Forward-mode differentiation carries (x, z) through the forward pass, which costs about two
    forward passes and stores no activations.

    Args:
        weights, direction: x and z, (d,) float32, not written to.
        model: what the error calls the model.

    Returns:
        ⟨∇F, z⟩ and F(x), two float64 arrays over all values of all losses.

    Raises:
        UserError: the loss does not depend on the weights in a differentiable way.
    """
    found = []
    with _graph(model), torch.no_grad(), _plain_attention(), forward_ad.dual_level():
        x = forward_ad.make_dual(usable(weights), usable(direction))
        for loss in losses:
            value, tangent = forward_ad.unpack_dual(loss(x))
            if tangent is None:
                raise _without_gradient(model)
            found.append(torch.stack([tangent.reshape(-1), value.reshape(-1)]))
    slope, value = torch.cat(found, 1).double().cpu().numpy()
    return slope, value


def hessian_vector(loss: Loss, weights: Tensor, vector: Tensor, model: str) -> Tensor:
    """∇²F(x) v by differentiating ⟨∇F(x), v⟩; for small models, since it keeps both graphs.

    Args:
        weights, vector: (d,) float32, not written to.
        model: what the error calls the model.

    Returns:
        (d,) float32.

    Raises:
        UserError: the loss does not depend on the weights in a differentiable way.
    """
    with _graph(model), _plain_attention():
        x = _leaf(weights)
        (slope,) = torch.autograd.grad(_reached(loss(x), model), x, create_graph=True)
        if not slope.requires_grad:  # the loss is linear
            return torch.zeros_like(slope)
        (product,) = torch.autograd.grad(slope, x, usable(vector), materialize_grads=True)
    return product


@contextmanager
def _graph(model: str) -> Iterator[None]:
    """Context that records a graph even if the caller disabled gradients, deterministically.

    cuDNN's flags are those of the image tasks' forward passes, because the backward of a
    convolution reads them again.
    """
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False),
    ):
        try:
            yield
        except NotImplementedError as error:  # an operation without the derivative asked for
            raise _without_gradient(model, f" ({error})") from error


def _plain_attention() -> AbstractContextManager[None]:
    return sdpa_kernel(SDPBackend.MATH)


def usable(inputs: Any) -> Any:
    """Makes tensors, also those in a dict, usable by autograd: copies those made in inference mode,
    which autograd rejects, and returns everything else unchanged."""
    if isinstance(inputs, dict):
        return {name: usable(value) for name, value in inputs.items()}
    return inputs.clone() if isinstance(inputs, Tensor) and inputs.is_inference() else inputs


def _leaf(weights: Tensor) -> Tensor:
    return usable(weights).detach().requires_grad_()


def _reached(loss: Tensor, model: str) -> Tensor:
    if not loss.requires_grad:
        raise _without_gradient(model)
    return loss


def _without_gradient(model: str, why: str = "") -> UserError:
    return UserError(
        f"the loss of task.model {model} has no gradient with respect to its weights{why}: "
        "first-order methods, probe exact and the oracle need one; use a zeroth-order method"
    )
