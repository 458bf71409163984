"""Image classification from scratch: digits, MNIST, Fashion-MNIST and CIFAR-10.

``digits``, the real 8×8 images of scikit-learn, is the embedded default task: it needs no download,
and its ten classes make Dirichlet skew visible. Its 360 test images are the same for every run
seed; the other sets have a test split of their own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from hiso_ray.config import Experiment, TaskConfig
from hiso_ray.method.layout import dimension
from hiso_ray.seeds import Purpose, generator
from hiso_ray.tasks import evaluation
from hiso_ray.tasks.contract import Count, Prepared, largest_layer, views
from hiso_ray.tasks.exported import Exported
from hiso_ray.tasks.flat.batch import IGNORED, Batch, apart, client_means, own_means
from hiso_ray.tasks.flat.mask import layout_in, mask_in
from hiso_ray.tasks.flat.module import ModuleTask
from hiso_ray.tasks.images import stacked
from hiso_ray.tasks.images.image_files import Split
from hiso_ray.tasks.images.image_sets import DIGITS, DOWNLOADED
from hiso_ray.tasks.images.images import read
from hiso_ray.tasks.images.in_torch import IMPORTS, in_torch
from hiso_ray.tasks.images.networks import initial_weights, layout_of, network

SETS = {"digits": DIGITS} | DOWNLOADED
TEST_SHARE = 0.2  # of digits


def prepare(experiment: Experiment) -> Prepared:
    """Reads the images; they stay bytes, and are normalised batch by batch.

    Raises:
        UserError: no such model for these images, or the data are missing or do not match.
    """
    config = experiment.task
    images = SETS[config.name]
    module = network(config.model, images)
    layout = layout_of(module)
    train, test = _digits() if images is DIGITS else read(images, config.data)
    train, test = _first(train, config.train_examples), _first(test, config.eval_examples)
    evaluation.check(config, len(test.labels))
    return Prepared(
        spec={"layout": layout},
        arrays={
            "train_x": train.images,
            "eval_x": test.images,
            "train_y": train.labels,
            "eval_y": test.labels,
        },
        x0=initial_weights(layout, generator(experiment.seed, Purpose.INITIAL_WEIGHTS)),
        labels=train.labels,
        label_names=images.names,
        activation=2 * stacked.widest(module, images.shape),  # a layer's input and output
        layers=len(module),
        classes="train_y",
        num_classes=len(images.names),
    )


def count(config: TaskConfig) -> Count:
    """How many weights there are, without reading images."""
    module = network(config.model, SETS[config.name])
    layout = layout_of(module)
    widest = stacked.widest(module, SETS[config.name].shape)
    return Count(dimension(layout), 0, largest_layer(layout), 2 * widest, len(module))


def _digits() -> tuple[Split, Split]:
    """Training and test images: rows of 64 float32 in [0, 1]."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(
        (images / 16.0).astype(np.float32),
        labels.astype(np.int64),
        test_size=TEST_SHARE,
        stratify=labels,
        random_state=0,
    )
    return Split(train_x, train_y), Split(test_x, test_y)


def _first(split: Split, limit: int | Literal["auto"]) -> Split:
    return split if limit == "auto" else Split(split.images[:limit], split.labels[:limit])


class ImageTask(ModuleTask):
    """A network and both splits on one device; ``Task`` documents the methods."""

    at_once = stacked.AT_ONCE

    def __init__(self, config: TaskConfig, prepared: Prepared, device: torch.device) -> None:
        self.config, self.device = config, device
        self._images, self._arrays = SETS[config.name], prepared.arrays
        module = network(config.model, self._images)
        batches = evaluation.batches(config, len(prepared.arrays["eval_y"]))
        super().__init__(module, layout_in(prepared), batches, mask_in(prepared))
        self._stacked = stacked.Stacked(module, self._images.shape)
        self.several = self if stacked.pays(module) else None
        self._mean, self._std = (
            torch.tensor(values, device=device).view(-1, 1, 1)
            for values in (self._images.mean, self._images.std)
        )

    def make_batch(self, split: str, clients: Sequence[np.ndarray]) -> Batch:
        examples = np.concatenate(clients)
        stored = torch.from_numpy(self._arrays[f"{split}_x"][examples]).to(self.device)
        pixels = stored.float().view(-1, *self._images.shape)
        labels = torch.from_numpy(self._arrays[f"{split}_y"][examples]).to(self.device)
        inputs = ((pixels - self._mean) / self._std).to(self._dtype)
        return Batch(inputs, labels, tuple(map(len, clients)))

    def logits(self, inputs: Tensor) -> Tensor:
        # By default cuDNN rounds the operands of a convolution to TF32's 10 bits, and its order of
        # summation may vary between calls; dividing a loss difference by μ = 1e-3 amplifies both.
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            return self.module(inputs)

    @torch.inference_mode()
    def losses_at(self, weights: Tensor, batches: Sequence[Batch]) -> np.ndarray:
        weights, out = self._whole(weights), []
        for inputs, labels, sizes, offsets in batches:
            terms = stacked.losses(self._stacked.logits(weights, inputs), labels, offsets)
            out.append(client_means(terms, sizes))
        return torch.cat(out, 1).double().cpu().numpy()

    @torch.inference_mode()
    def losses_of_each(self, weights: Tensor, batch: Batch) -> np.ndarray:
        clients, k, _ = weights.shape
        index, real = apart(batch.sizes, self.device)
        inputs = batch.inputs[index].repeat_interleave(k, 0)
        labels = torch.where(real, batch.labels[index], IGNORED).repeat_interleave(k, 0)
        logits = self._stacked.logits(self._whole(weights.flatten(0, 1)), inputs)
        offsets = batch.offsets
        if offsets is not None:
            offsets = offsets[index].repeat_interleave(k, 0)
        terms = stacked.losses(logits, labels, offsets).view(clients, k, -1)
        return own_means(terms, real).T.double().cpu().numpy()

    def _whole(self, weights: Tensor) -> Tensor:
        """(..., D) weights of the network, of (..., d)."""
        return weights if self._mask is None else self._mask.spread(weights)

    def export(self, weights: Tensor, folder: Path) -> Exported:
        folder.mkdir(parents=True)
        named = views(self._whole(weights.cpu()), self._tensors)
        tensors = {name: view.clone() for name, view in named.items()}
        save_file(tensors, folder / "model.safetensors")
        about = {
            "task": self.config.name,
            "model": self.config.model,
            "shapes": {name: list(shape) for name, shape in self._tensors},
            "mean": self._images.mean,
            "std": self._images.std,
        }
        (folder / "config.json").write_text(json.dumps(about, indent=2))
        pixels = self._arrays["train_x"].dtype
        return Exported(
            "image classifier",
            imports=IMPORTS,
            load=in_torch(self.module),
            pipeline="image-classification",
            scored_as="image-classification",
            details={
                "input": f"(n, {', '.join(map(str, self._images.shape))}) float32: (pixels - mean) "
                "/ std of each channel, which are in config.json; pixels are "
                + ("0 to 255" if pixels == np.uint8 else "0 to 1"),
                "classes": ", ".join(self._images.names),
            },
        )


build = ImageTask
