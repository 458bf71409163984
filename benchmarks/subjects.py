"""The models and text that forward passes are measured on. Imported by the benchmarks.

A model is a folder with its weights, or the shape of a published one with random weights. Text is
SST-2 as the task reads it, or random tokens of one length. A shape has no tokenizer, so it reads
SST-2 with another model's.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hiso_ray import Experiment, tasks
from hiso_ray.method.layout import Layout, dimension
from hiso_ray.tasks.contract import Prepared, views
from hiso_ray.tasks.forward import forwards
from hiso_ray.tasks.pretrained.known_models import KNOWN
from hiso_ray.tasks.pretrained.pretrained import configuration, skeleton

SHARED = Path(__file__).resolve().parents[2] / "shared"
SST2 = SHARED / "data" / "sst2"
FOLDERS = {f"opt-{size}": SHARED / "models" / f"opt-imdb-{size}" for size in ("1m", "4m")}
SHAPES = {name.partition("/")[2].lower(): config for name, config in KNOWN.items()}
TOKENIZER = FOLDERS["opt-4m"]  # for shapes
DRAWN = 1 << 26  # random weights drawn; longer vectors repeat them, since 10 GiB take a while
ANSWERS = (7, 9)  # tokens; arbitrary, since weights are random


def absent(model: str, data: Path | None, tokenizer: Path) -> str:
    """The first missing thing that :func:`sentences` needs; empty if nothing is missing.

    Args:
        data: None if the text is random.
    """
    needed = [] if data is None else [data]
    if model not in SHAPES:
        needed.append(FOLDERS.get(model, Path(model)))
    elif data is not None:
        needed.append(tokenizer)
    return next((str(path) for path in needed if not path.is_dir()), "")


def sentences(model: str, experiment: Experiment, data: Path, tokenizer: Path) -> Prepared:
    """A model and SST-2.

    Args:
        model: a key of ``FOLDERS`` or ``SHAPES``, or a folder.
        experiment: its other fields are kept.
    """
    folder = tokenizer if model in SHAPES else FOLDERS.get(model, Path(model))
    fields = {"task.name": "sst2", "task.data": str(data), "task.model": str(folder)}
    prepared = tasks.prepare(tasks.resolve(experiment.changed(**fields)))
    if model not in SHAPES:
        return prepared
    vocabulary = SHAPES[model]["vocab_size"]
    ids = {
        name: array % vocabulary if name.endswith("_ids") else array
        for name, array in prepared.arrays.items()
        if name.startswith(("train_", "eval_"))
    }
    return random_weights(SHAPES[model], replace(prepared, arrays=ids))


def random_text(config: dict[str, Any], n: int, length: int) -> Prepared:
    """A shape, and n prompts of exactly ``length`` random tokens."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, n)
    arrays = {
        f"{part}_{name}": value
        for part in ("train", "eval")
        for name, value in (
            ("prompt_ids", rng.integers(5, config["vocab_size"], length * n).astype(np.int32)),
            ("prompt_offsets", np.arange(0, length * n + 1, length)),
            ("labels", labels),
        )
    }
    return random_weights(config, Prepared({}, arrays, np.empty(0), labels, ("no", "yes")))


def config_of(model: str) -> dict[str, Any]:
    return SHAPES[model] if model in SHAPES else configuration(str(FOLDERS.get(model, model)))


def random_weights(config: dict[str, Any], text: Prepared) -> Prepared:
    """Replaces the model that the text was read for by a shape."""
    with torch.device("meta"):
        model = skeleton(config)
    layout: Layout = tuple((n, tuple(p.shape)) for n, p in model.named_parameters())
    x0 = np.empty(dimension(layout), np.float32)
    rng = np.random.default_rng(0)
    drawn = rng.standard_normal(min(DRAWN, len(x0)), dtype=np.float32) * np.float32(0.02)
    for i in range(0, len(x0), DRAWN):
        x0[i : i + DRAWN] = drawn[: len(x0) - i]
    offsets = text.arrays["train_prompt_offsets"]
    some = np.split(text.arrays["train_prompt_ids"], offsets[1:-1])[:64]
    if len({len(ids) for ids in some}) == 1:  # the choice of a form compares different lengths
        some = [ids[: 1 + i % len(ids)] for i, ids in enumerate(some)]
    model = skeleton(config).eval()
    for parameter, view in zip(
        model.parameters(), views(torch.from_numpy(x0), layout).values(), strict=True
    ):
        parameter.data = view
    spec = {
        "model": config,
        "layout": layout,
        "dense": layout,
        "answers": list(ANSWERS),
        "forward": forwards.choose(model, some, torch.tensor(ANSWERS)),
    }
    return replace(text, spec=spec, x0=x0, frozen=0, notes=())
