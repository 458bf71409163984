"""Which tensors are trained: all, those whose names match, or LoRA adapters.

All others keep their pretrained values ("frozen"). Parameters that the loss does not reach are
always frozen: they would random-walk under g·z.

LoRA (Hu et al. 2021, arXiv 2106.09685) uses peft. Its adapters start as in peft, A uniform in
±1/√fan_in and B = 0, but drawn from the run seed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hiso_ray.config import LoraConfig, TaskConfig
from hiso_ray.errors import UserError
from hiso_ray.method.layout import Layout, dimension
from hiso_ray.seeds import Purpose, generator
from hiso_ray.tasks.contract import Count, largest_layer


@dataclass(frozen=True)
class Trainable:
    """A model's weights, divided.

    Attributes:
        layout: the trained tensors, in the order of x.
        x0: (d,) float32.
        arrays: the others, "frozen/NAME", in the dtype of the forward passes (:func:`stored`).
        notes: lines for the user.
    """

    layout: Layout
    x0: np.ndarray
    arrays: dict[str, np.ndarray]
    notes: tuple[str, ...]

    @property
    def frozen(self) -> int:
        """How many of the model's weights are not trained."""
        return sum(array.size for array in self.arrays.values())


def stored(tensor: Tensor) -> np.ndarray:
    """A tensor as an array that shares its memory; bfloat16, which numpy lacks, as uint16."""
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.view(torch.uint16)
    return tensor.numpy()


def restored(array: np.ndarray) -> Tensor:
    """Inverse of :func:`stored`; shares the array's memory, which is read-only."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable")
        tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if array.dtype == np.uint16 else tensor


def add_lora(model: Any, lora: LoraConfig) -> str:
    """Puts adapters into the model, in place; their weights are not yet drawn.

    Returns:
        The full names of the adapted layers, comma-separated, to be given as ``target_modules``.

    Raises:
        UserError: a name that no linear layer has (lists the existing names).
    """
    from peft import inject_adapter_in_model
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as CHOICES

    names = [name for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    wanted: Any = lora.target_modules.replace(" ", "").split(",")
    if lora.target_modules == "auto":
        wanted = CHOICES.get(model.config.model_type, "all-linear")
    elif lora.target_modules == "all-linear":
        wanted = lora.target_modules
    if not isinstance(wanted, str):
        for target in wanted:
            if not any(f".{name}".endswith(f".{target}") for name in names):
                linear = sorted({name.rpartition(".")[2] for name in names})
                raise UserError(
                    f"task.lora.target_modules = {lora.target_modules}: no linear layer "
                    f"{target!r} in this model; it has {', '.join(linear)}"
                )
    with _by_peft():
        inject_adapter_in_model(_peft_config(lora, wanted), model)
    adapters = (name.partition(".lora_A.") for name, _ in model.named_parameters())
    return ",".join(layer for layer, found, _ in adapters if found)


def with_lora(model: Any, lora: LoraConfig) -> Any:
    """The model as one of peft's, with adapters whose weights are not yet the run's.

    Args:
        lora: with ``target_modules`` as :func:`add_lora` returned them.
    """
    from peft import get_peft_model

    with _by_peft():
        return get_peft_model(model, _peft_config(lora, lora.target_modules.split(",")))


def merged(model: Any) -> Any:
    """The whole model, with the adapters of :func:`with_lora` folded into its weights."""
    whole = model.get_base_model()
    head, embedding = whole.get_output_embeddings(), whole.get_input_embeddings()
    layer = getattr(head, "base_layer", None)  # what an adapted layer was before
    if layer is not None and layer.weight is embedding.weight:
        # The adapter changes the head alone, so the two are one tensor no longer.
        layer.weight = nn.Parameter(layer.weight.clone())
        whole.config.get_text_config().tie_word_embeddings = False
    return model.merge_and_unload()


@contextmanager
def _by_peft() -> Iterator[None]:
    """peft draws weights, which are replaced later, and uses names that transformers deprecates."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _peft_config(lora: LoraConfig, targets: list[str] | str) -> Any:
    import peft

    return peft.LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        target_modules=targets,
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )


def select(model: nn.Module, reached: set[int], config: TaskConfig, run_seed: int) -> Trainable:
    """Divides the model's weights.

    Args:
        model: pretrained, with its adapters in place if there are any.
        reached: ids of the parameters that the loss depends on.

    Raises:
        UserError: a pattern that matches no parameter (lists some names).
    """
    named = dict(model.named_parameters())
    chosen = _chosen(list(named), config)
    unreached = [name for name in chosen if id(named[name]) not in reached]
    chosen = [name for name in chosen if name not in unreached]
    layout = tuple((name, tuple(named[name].shape)) for name in chosen)
    values = [named[name].detach().float().numpy().ravel() for name in chosen]
    if config.lora.r:
        values = _adapters(layout, run_seed)
    x0 = np.concatenate(values)
    dtype = getattr(torch, config.dtype)
    arrays = {
        f"frozen/{name}": stored(p.detach().to(dtype)) for name, p in named.items()
        if name not in chosen
    }  # fmt: skip
    notes = []
    if unreached:
        notes.append(f"frozen, because the loss does not reach them: {', '.join(unreached)}")
    return Trainable(layout, x0, arrays, tuple(notes))


def count(model: nn.Module, config: TaskConfig) -> Count:
    """Counts the weights of a model whose storage may be uninitialised."""
    named = {name: tuple(p.shape) for name, p in model.named_parameters()}
    layout = tuple((name, named[name]) for name in _chosen(list(named), config))
    chosen = dimension(layout)
    frozen = dimension(tuple(named.items())) - chosen
    assert isinstance(config.max_length, int)
    of_token, layers = activation(model)
    return Count(chosen, frozen, largest_layer(layout), of_token * config.max_length, layers)


def activation(model: Any) -> tuple[int, int]:
    """Elements that a decoder layer holds per token, and the number of layers.

    A gated feed-forward part holds three tensors of its width at once, attention its queries, keys,
    values and outputs; the residual and a norm's output are held as well.
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    hidden = embedding.weight.shape[1]
    sizes = [
        max(module.weight.shape) for module in model.modules()
        if module not in (embedding, head) and getattr(module, "weight", None) is not None
        and module.weight.dim() == 2
    ]  # fmt: skip
    layers = getattr(model.config.get_text_config(), "num_hidden_layers", 1)
    return 3 * max(sizes, default=hidden) + 4 * hidden, int(layers)


def _chosen(names: list[str], config: TaskConfig) -> list[str]:
    if config.lora.r:
        return [name for name in names if ".lora_A." in name or ".lora_B." in name]
    if config.trainable == "all":
        return names
    patterns = [pattern.strip() for pattern in config.trainable.split(",")]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(
                f"task.trainable = {config.trainable}: no parameter fits {pattern!r}; there are "
                f"{len(names)}, such as {', '.join([*names[:3], *names[-2:]])}"
            )
    return [name for name in names if any(fnmatchcase(name, p) for p in patterns)]


def _adapters(layout: Layout, run_seed: int) -> list[np.ndarray]:
    rng = generator(run_seed, Purpose.INITIAL_WEIGHTS)
    values = []
    for name, shape in layout:
        size = int(np.prod(shape))
        bound = 1 / np.sqrt(shape[1]) if ".lora_A." in name else 0.0
        values.append(rng.uniform(-bound, bound, size).astype(np.float32))
    return values
