"""Small image classifiers by name: the CNNs of the DeComFL authors, and a perceptron.

The convolutional networks are the ones in the authors' code (github.com/ZidongLiu/DeComFL,
``cnn_mnist.py``, ``cnn_fashion.py``, ``lenet.py``), with these numbers of weights:

=================  =========  ==============================================================
``mnist``             28,938  conv 16 (5×5, padded), pool, conv 32 (5×5, padded), pool, 10
``fashion_mnist``  1,199,882  conv 32 (3×3), conv 64 (3×3), pool, 128, 10
``cifar10``           62,006  LeNet: conv 6 (5×5), pool, conv 16 (5×5), pool, 120, 84, 10
=================  =========  ==============================================================

ReLU follows every layer but the last; pools are 2×2 max pools. There is no dropout and no batch
norm. Their network for Fashion-MNIST has 62 outputs for 10 classes (1,206,590 weights); ours has
10.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any

import numpy as np
from torch import nn
from torch.nn.utils import skip_init

from hiso_ray.errors import UserError
from hiso_ray.method.layout import Layout
from hiso_ray.tasks.images.image_sets import ImageSet


def network(name: str, images: ImageSet) -> nn.Sequential:
    """The network that ``task.model`` names, for (n, channels, height, width), not initialised.

    Raises:
        UserError: no such network for these images.
    """
    kind, _, width = name.partition("-")
    if kind == "mlp" and width.isdecimal() and int(width) > 0:
        return _perceptron(int(width), images)
    if name == "cnn" and images.name in CNNS:
        return CNNS[images.name]()
    allowed = "cnn or mlp-WIDTH" if images.name in CNNS else "mlp-WIDTH"
    raise UserError(f"task.model = {name}: {images.name} takes {allowed}, for example mlp-32")


def layout_of(module: nn.Module) -> Layout:
    return tuple((name, tuple(weights.shape)) for name, weights in module.named_parameters())


def initial_weights(layout: Layout, rng: np.random.Generator) -> np.ndarray:
    """(d,) float32, uniform in ±1/√fan-in, as torch initialises nn.Linear and nn.Conv2d."""
    parts = []
    for name, shape in layout:
        if name.endswith(".weight"):
            bound = 1 / np.sqrt(math.prod(shape[1:]))  # also used for the bias, which comes next
        parts.append(rng.uniform(-bound, bound, math.prod(shape)).astype(np.float32))
    return np.concatenate(parts)


def _named(**layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(layers))


def _linear(inputs: int, outputs: int) -> Any:
    """Skips initialisation, which would draw from the global generator."""
    return skip_init(nn.Linear, inputs, outputs)


def _conv(inputs: int, outputs: int, kernel: int, padding: int = 0) -> Any:
    return skip_init(nn.Conv2d, inputs, outputs, kernel, padding=padding)


def _perceptron(width: int, images: ImageSet) -> nn.Sequential:
    return _named(
        flat=nn.Flatten(),
        hidden=_linear(math.prod(images.shape), width),
        relu=nn.ReLU(),
        output=_linear(width, len(images.names)),
    )


def _mnist() -> nn.Sequential:
    return _named(
        conv1=_conv(1, 16, kernel=5, padding=2),  # 28×28
        relu1=nn.ReLU(),
        pool1=nn.MaxPool2d(2),  # 14×14
        conv2=_conv(16, 32, kernel=5, padding=2),
        relu2=nn.ReLU(),
        pool2=nn.MaxPool2d(2),  # 7×7
        flat=nn.Flatten(),
        output=_linear(32 * 7 * 7, 10),
    )


def _fashion_mnist() -> nn.Sequential:
    return _named(
        conv1=_conv(1, 32, kernel=3),  # 26×26
        relu1=nn.ReLU(),
        conv2=_conv(32, 64, kernel=3),  # 24×24
        relu2=nn.ReLU(),
        pool=nn.MaxPool2d(2),  # 12×12
        flat=nn.Flatten(),
        hidden=_linear(64 * 12 * 12, 128),
        relu3=nn.ReLU(),
        output=_linear(128, 10),
    )


def _cifar10() -> nn.Sequential:
    return _named(
        conv1=_conv(3, 6, kernel=5),  # 28×28
        relu1=nn.ReLU(),
        pool1=nn.MaxPool2d(2),  # 14×14
        conv2=_conv(6, 16, kernel=5),  # 10×10
        relu2=nn.ReLU(),
        pool2=nn.MaxPool2d(2),  # 5×5
        flat=nn.Flatten(),
        hidden1=_linear(16 * 5 * 5, 120),
        relu3=nn.ReLU(),
        hidden2=_linear(120, 84),
        relu4=nn.ReLU(),
        output=_linear(84, 10),
    )


CNNS = {"mnist": _mnist, "fashion_mnist": _fashion_mnist, "cifar10": _cifar10}
