"""One feed-forward network at k weight vectors in a single batched computation.

The probes of a zeroth-order round score the same minibatches at x and at every x + μz. The networks
of ``networks`` are so small that, run one by one, they spend their time on calling torch; here
every layer is called once for all k. Fully connected layers are batched products. Convolutions run
the k networks as groups of channels, or, while all read the same images, as k times as many output
channels. Wherever batching helped at all, this was the fastest variant tried: unfolding images into
products moves several times the data, and ``torch.func.vmap`` over ``functional_call`` repeats at
each call what is done once here, and its grouped convolutions hold all examples at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from hiso_ray.method.layout import dimension
from hiso_ray.tasks.images.networks import layout_of

PAYS_UP_TO = 1 << 17  # weights
AT_ONCE = 64  # weight vectors evaluated together

# Activations of one layer that are held at once. On a CPU they stay in the cache until the next
# layer reads them, and need no fresh pages from the system at each call; elsewhere they only have
# to fit.
ON_CPU = 1 << 20
ELSEWHERE = 1 << 28


def pays(network: nn.Module) -> bool:
    """Whether on a CPU all weight vectors at once are faster than one by one.

    Stacking saves calls of torch and fills SIMD registers better with narrow layers. For a large
    network both gains are negligible, and its k sets of weights no longer fit in the cache: above a
    size measured for perceptrons and CNNs in both dtypes, one by one is as fast or faster and needs
    less memory. The answer depends on the model alone, never on k or the machine, because it may
    change the last bits of a loss.
    """
    return dimension(layout_of(network)) <= PAYS_UP_TO


class Stacked:
    """A network that is evaluated at k weight vectors at once; its own weights are never read.

    Memory: two copies of the k weight vectors, and at most ``ON_CPU`` or ``ELSEWHERE`` activations
    of a layer at once (or those of one example, if more). The examples are split to stay below.

    Args:
        network: of Linear, Conv2d, ReLU and MaxPool2d layers, with a Flatten after those that read
            images; as in ``networks``, a ReLU follows a layer that has weights.
        shape: channels, height, width of an image.
    """

    def __init__(self, network: nn.Sequential, shape: tuple[int, int, int]) -> None:
        layers = list(network)
        flat = next(i for i, layer in enumerate(layers) if isinstance(layer, nn.Flatten))
        self._convolutions, self._rest = layers[:flat], layers[flat + 1 :]
        self._shapes = [shape for _, shape in layout_of(network)]
        self._sizes = [math.prod(shape) for shape in self._shapes]
        self._of_convolutions = sum(len(list(layer.parameters())) for layer in self._convolutions)
        self._widest = widest(network, shape)

    def logits(self, weights: Tensor, inputs: Tensor) -> Tensor:
        """What the network returns at each weight vector.

        Args:
            weights: (k, d) float32 or bfloat16, each row laid out as ``layout_of(network)``.
            inputs: (n, channels, height, width) shared by all weight vectors, or
                (k, n, channels, height, width), each one's own; in the weights' dtype.

        Returns:
            (k, n, classes) in the weights' dtype.
        """
        k, own = len(weights), inputs.dim() == 5
        held = ON_CPU if weights.device.type == "cpu" else ELSEWHERE
        part = max(1, held // (k * self._widest))
        tensors = weights.unsqueeze(1).split(self._sizes, 2)
        rest = self._products(tensors, k)
        if self._convolutions:
            kernels = self._kernels(tensors)
            images = inputs.transpose(0, 1).flatten(1, 2) if own else inputs
            parts = [
                self._classes(rest, self._features(kernels, some, k, own))
                for some in images.split(part)
            ]
        else:
            rows = inputs.flatten(2) if own else inputs.flatten(1).expand(k, -1, -1)
            if part >= rows.shape[1]:
                return self._classes(rest, rows)
            parts = [self._classes(rest, some) for some in rows.split(part, 1)]
        return torch.cat(parts, 1)

    def _kernels(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """(k·out, in, height, width) and (k·out,) of each convolution, copied."""
        own = zip(self._shapes[: self._of_convolutions], tensors, strict=False)
        return [tensor.reshape(-1, *shape[1:]) for shape, tensor in own]

    def _products(self, tensors: Sequence[Tensor], k: int) -> list[Tensor]:
        """(k, in, out) and (k, 1, out) of each Linear."""
        out = []
        for shape, tensor in list(zip(self._shapes, tensors, strict=True))[self._of_convolutions :]:
            if len(shape) == 2:
                # Half-precision products are slow on matrices that are not contiguous.
                tensor = tensor if tensor.dtype == torch.float32 else tensor.contiguous()
                tensor = tensor.view(k, *shape).mT
            out.append(tensor)
        return out

    def _features(self, kernels: list[Tensor], images: Tensor, k: int, own: bool) -> Tensor:
        """(k, n, features) of (n, channels, height, width), or (n, k·channels, height, width)."""
        # With channels last, a pool compares vectors of channels instead of single pixels. Images
        # of one channel are contiguous in either order, so only a copy sets the memory format.
        images = images.clone(memory_format=torch.channels_last)
        groups, at = k if own else 1, 0
        for layer in self._convolutions:
            if isinstance(layer, nn.Conv2d):
                assert layer.groups == 1
                assert not isinstance(layer.padding, str)
                kernel, bias = kernels[at], kernels[at + 1]
                # As in `vision`: cuDNN must neither round to TF32 nor sum in another order.
                with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
                    images = functional.conv2d(
                        images, kernel, bias, layer.stride, layer.padding, layer.dilation, groups
                    )
                groups, at = k, at + 2
            elif isinstance(layer, nn.ReLU):
                images.relu_()
            else:
                assert isinstance(layer, nn.MaxPool2d)
                images = functional.max_pool2d(images, layer.kernel_size)
        return images.unflatten(1, (k, -1)).transpose(0, 1).flatten(2)

    def _classes(self, products: list[Tensor], rows: Tensor) -> Tensor:
        """(k, n, classes) of (k, n, features)."""
        at = 0
        for layer in self._rest:
            if isinstance(layer, nn.Linear):
                rows = torch.baddbmm(products[at + 1], rows, products[at])
                at += 2
            else:
                assert isinstance(layer, nn.ReLU)
                rows.relu_()
        return rows


def losses(logits: Tensor, labels: Tensor, offsets: Tensor | None = None) -> Tensor:
    """Cross-entropy of every example, computed in float32.

    Args:
        logits: (k, n, classes) in any dtype.
        labels: int64, (n,) shared by all weight vectors, or (k, n), each one's own. The loss of
            ``batch.IGNORED`` is 0.
        offsets: as in ``batch.Batch``, likewise (n, classes) or (k, n, classes).

    Returns:
        (k, n) float32.
    """
    # With the classes last, torch does not vectorise over their few exponentials.
    each = logits.float() if offsets is None else logits.float() + offsets
    each = each.transpose(1, 2)
    return functional.cross_entropy(each, labels.expand(logits.shape[:2]), reduction="none")


@torch.inference_mode()
def widest(network: nn.Module, shape: tuple[int, int, int]) -> int:
    """Elements of the largest output of a layer with weights, for one image."""
    hidden, most = torch.zeros(1, *shape), 1
    for layer in network.children():
        hidden = layer(hidden)
        if list(layer.parameters()):
            most = max(most, hidden.numel())
    return most
