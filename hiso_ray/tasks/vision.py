"""Handwritten digits: the real 8×8 images of scikit-learn, ten classes, a small perceptron.

The embedded default task: no download, and with ten classes Dirichlet skew bites. The 360 test
images are the same for every run seed.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from hiso_ray.config import TaskConfig
from hiso_ray.seeds import Purpose, generator
from hiso_ray.tasks.contract import Layout, Prepared, views
from hiso_ray.tasks.module import Batch, ModuleTask

CLASSES = 10
PIXELS = 64
TEST_SHARE = 0.2


def prepare(config: TaskConfig, run_seed: int) -> Prepared:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    width = _width(config.model)
    images, labels = load_digits(return_X_y=True)
    images = (images / 16.0).astype(np.float32)
    parts = train_test_split(
        images, labels.astype(np.int64), test_size=TEST_SHARE, stratify=labels, random_state=0
    )
    layout = _layout(width)
    rng = generator(run_seed, Purpose.INITIAL_WEIGHTS)
    x0 = []
    for name, shape in layout:
        fan_in = PIXELS if name.startswith("hidden") else width
        bound = 1 / np.sqrt(fan_in)
        x0.append(rng.uniform(-bound, bound, int(np.prod(shape))).astype(np.float32))
    names = ("train_x", "eval_x", "train_y", "eval_y")
    return Prepared(
        spec={"layout": layout},
        arrays=dict(zip(names, (np.ascontiguousarray(part) for part in parts), strict=True)),
        x0=np.concatenate(x0),
        labels=parts[2],
        label_names=tuple(str(digit) for digit in range(CLASSES)),
    )


def _width(model: str) -> int:
    kind, _, size = model.partition("-")
    if kind != "mlp" or not size.isdecimal() or int(size) < 1:
        raise ValueError(f"task.model = {model}: digits takes mlp-WIDTH, for example mlp-32")
    return int(size)


def _layout(width: int) -> Layout:
    return (
        ("hidden.weight", (width, PIXELS)),
        ("hidden.bias", (width,)),
        ("output.weight", (CLASSES, width)),
        ("output.bias", (CLASSES,)),
    )


class _Perceptron(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = _Linear(PIXELS, width)
        self.output = _Linear(width, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.output(torch.relu(self.hidden(images)))


class _Linear(nn.Module):
    """nn.Linear without its initialisation, which would draw from the global generator."""

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(fan_out, fan_in))
        self.bias = nn.Parameter(torch.empty(fan_out))

    def forward(self, inputs: Tensor) -> Tensor:
        return nn.functional.linear(inputs, self.weight, self.bias)


class Digits(ModuleTask):
    """The perceptron and both splits on one device; ``Task`` says what the methods do."""

    def __init__(self, config: TaskConfig, prepared: Prepared, device: torch.device) -> None:
        width = _width(config.model)
        arrays = {k: torch.tensor(v, device=device) for k, v in prepared.arrays.items()}
        examples = len(arrays["eval_y"])
        super().__init__(_Perceptron(width), _layout(width), examples, config.eval_batch_size)
        dtype = getattr(torch, config.dtype)
        self._splits = {
            split: (arrays[f"{split}_x"].to(dtype), arrays[f"{split}_y"])
            for split in ("train", "eval")
        }

    def make_batch(self, split: str, examples: np.ndarray) -> Batch:
        images, labels = self._splits[split]
        index = torch.from_numpy(examples)
        return Batch(images[index], labels[index])

    def logits(self, inputs: Tensor) -> Tensor:
        return self.module(inputs)

    def export(self, weights: Tensor, folder: Path) -> None:
        folder.mkdir(parents=True)
        tensors = {name: view.clone() for name, view in views(weights.cpu(), self.layout).items()}
        save_file(tensors, folder / "model.safetensors")
        shapes = {name: list(shape) for name, shape in self.layout}
        (folder / "config.json").write_text(
            json.dumps({"model": "mlp", "shapes": shapes}, indent=2)
        )


build = Digits
