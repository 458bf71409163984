"""Prompt classification with a Hugging Face causal language model.

The model reads "<text> It was" and is scored on the next token: cross-entropy and accuracy over
the classes' answer tokens (" bad" / " good"), at that one position. Prompts are padded on the left,
so the answer position is the last one of every row, and each batch is trimmed to its longest
prompt. Loss is computed from float32 logits whatever the dtype of the forward pass.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiso_ray.config import TaskConfig
from hiso_ray.tasks.benchmarks import BENCHMARKS, Benchmark
from hiso_ray.tasks.contract import Layout, Prepared, views
from hiso_ray.tasks.module import Batch, ModuleTask, reached_parameters
from hiso_ray.tasks.sources import Rows, read

CAUSAL = ("ForCausalLM", "LMHeadModel")  # how architectures of such models are named


def prepare(config: TaskConfig, run_seed: int) -> Prepared:
    """Reads data and model; every parameter that the loss reaches is trainable.

    Raises:
        ValueError: the data, the model folder or the verbalizers do not fit the task.
    """
    benchmark = BENCHMARKS[config.name]
    train, evaluation, notes = read(benchmark, config.data, run_seed)
    model, tokenizer = _pretrained(config.model)
    answers = _answer_tokens(benchmark, tokenizer, config.model)
    tokens: dict[str, np.ndarray] = {}
    truncated = 0
    for split, rows in (("train", train), ("eval", evaluation)):
        ids, lengths, cut = _tokenize(rows, tokenizer, config.max_length)
        truncated += cut
        tokens |= {f"{split}_ids": ids, f"{split}_lengths": lengths, f"{split}_labels": rows.labels}
    longest, positions = tokens["train_ids"].shape[1], _positions(model)
    longest = max(longest, tokens["eval_ids"].shape[1])
    if positions is not None and longest > positions:
        raise ValueError(
            f"task.max_length = {config.max_length}: the longest prompt has {longest} tokens, the "
            f"model reads at most {positions}; lower max_length"
        )
    frozen, layout = _trainable(model, tokens["train_ids"][:1], answers)
    named = dict(model.named_parameters())
    x0 = np.concatenate([named[n].detach().float().numpy().ravel() for n, _ in layout])
    words = ", ".join(repr(tokenizer.decode([t])) for t in answers)
    total = len(train.labels) + len(evaluation.labels)
    return Prepared(
        spec={"model": _without_path(model.config), "layout": layout, "answers": answers},
        arrays=tokens | {f"frozen/{name}": value for name, value in frozen.items()},
        x0=x0,
        labels=train.labels,
        label_names=benchmark.names,
        notes=(
            *notes,
            f"{config.name}: {len(train.labels)} training and {len(evaluation.labels)} evaluation "
            f"prompts, answers {words}; {truncated / total:.1%} longer than {config.max_length} "
            "tokens, truncated on the left",
            *(
                [f"frozen, because the loss does not reach them: {', '.join(frozen)}"]
                * bool(frozen)
            ),
        ),
    )


def _pretrained(name: str) -> tuple[Any, Any]:
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    if Path(name).expanduser().exists():
        name = str(Path(name).expanduser())
    elif name.startswith((".", "/", "~")):
        raise ValueError(f"task.model = {name}: no such folder")
    transformers_logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        kinds = config.architectures or []
        if not all(kind.endswith(CAUSAL) for kind in kinds):
            raise ValueError(f"its architecture is {', '.join(kinds)}")
        tokenizer = AutoTokenizer.from_pretrained(name, truncation_side="left")
        model, found = AutoModelForCausalLM.from_pretrained(
            name,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        lacking = sorted(found["missing_keys"]) + sorted(map(str, found["mismatched_keys"]))
        if lacking:  # they would be drawn at random
            raise ValueError(f"its weights lack or do not fit {', '.join(lacking[:4])}")
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ValueError(
            f"task.model = {name}: not a causal language model that can be loaded "
            f"({str(error).strip().splitlines()[0]}). A local folder needs config.json, "
            "model.safetensors and the tokenizer's files; a hub name needs the hub."
        ) from error
    return model.eval(), tokenizer


def _answer_tokens(benchmark: Benchmark, tokenizer: Any, model: str) -> list[int]:
    tried = []
    for answers in benchmark.verbalizers:
        ids = [tokenizer(answer, add_special_tokens=False)["input_ids"] for answer in answers]
        firsts = [i[0] for i in ids if len(i) == 1]
        if len(set(firsts)) == len(answers):
            return firsts
        tried.append(", ".join(f"{a!r} → {i}" for a, i in zip(answers, ids, strict=True)))
    raise ValueError(
        f"task.model = {model}: its tokenizer has no single, distinct token for each answer: "
        + "; ".join(tried)
    )


def _tokenize(rows: Rows, tokenizer: Any, limit: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Token ids padded on the left to the longest prompt, lengths, and how many were cut."""
    whole = tokenizer(rows.prompts, verbose=False)["input_ids"]
    ids = tokenizer(rows.prompts, truncation=True, max_length=limit)["input_ids"]
    lengths = np.array([len(i) for i in ids], np.int32)
    out = np.zeros((len(ids), int(lengths.max())), np.int32)
    for row, tokens in zip(out, ids, strict=True):
        row[len(row) - len(tokens) :] = tokens
    return out, lengths, sum(len(w) > limit for w in whole)


def _without_path(config: Any) -> dict[str, Any]:
    return {k: v for k, v in config.to_dict().items() if k != "_name_or_path"}


def _positions(model: Any) -> int | None:
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


def _trainable(
    model: Any, ids: np.ndarray, answers: list[int]
) -> tuple[dict[str, np.ndarray], Layout]:
    tokens = torch.from_numpy(ids.astype(np.int64))
    with torch.enable_grad():
        logits = model(input_ids=tokens, logits_to_keep=1, use_cache=False).logits
        reached = reached_parameters(logits[:, -1, answers].sum())
    named = list(model.named_parameters())
    layout = tuple((n, tuple(p.shape)) for n, p in named if id(p) in reached)
    frozen = {n: p.detach().numpy() for n, p in named if id(p) not in reached}
    return frozen, layout


class LanguageTask(ModuleTask):
    """The language model and both splits on one device; ``Task`` says what the methods do."""

    def __init__(self, config: TaskConfig, prepared: Prepared, device: torch.device) -> None:
        self.config, self.device = config, device
        module = _empty_model(prepared.spec["model"])
        dtype = getattr(torch, config.dtype)
        for name, parameter in module.named_parameters():
            if f"frozen/{name}" in prepared.arrays:
                parameter.data = torch.tensor(
                    prepared.arrays[f"frozen/{name}"], dtype=dtype, device=device
                )
        for buffer in module.buffers():
            buffer.data = buffer.to(device)
        layout = tuple((name, tuple(shape)) for name, shape in prepared.spec["layout"])
        super().__init__(module, layout, len(prepared.arrays["eval_ids"]), config.eval_batch_size)
        self._answers = torch.tensor(prepared.spec["answers"], device=device)
        self._arrays = prepared.arrays
        self._takes_positions = "position_ids" in inspect.signature(module.forward).parameters

    def make_batch(self, split: str, examples: np.ndarray) -> Batch:
        lengths = self._arrays[f"{split}_lengths"][examples].astype(np.int64)
        longest = int(lengths.max())
        ids = self._arrays[f"{split}_ids"][examples, -longest:].astype(np.int64)
        real = (np.arange(longest) >= longest - lengths[:, None]).astype(np.int64)
        inputs = {
            "input_ids": torch.from_numpy(ids).to(self.device),
            "attention_mask": torch.from_numpy(real).to(self.device),
        }
        if self._takes_positions:  # by default some models count the padding as well
            positions = np.maximum(real.cumsum(1) - 1, 0)
            inputs["position_ids"] = torch.from_numpy(positions).to(self.device)
        labels = self._arrays[f"{split}_labels"][examples]
        return Batch(inputs, torch.from_numpy(labels).to(self.device))

    def logits(self, inputs: dict[str, Tensor]) -> Tensor:
        out = self.module(**inputs, logits_to_keep=1, use_cache=False).logits
        return out[:, -1, self._answers]

    def export(self, weights: Tensor, folder: Path) -> None:
        """A Hugging Face folder: the original model with these weights, and its tokenizer."""
        model, tokenizer = _pretrained(self.config.model)
        tensors = views(weights.cpu(), self.layout)
        for name, parameter in model.named_parameters():
            if name in tensors:
                parameter.data = tensors[name].clone()
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _empty_model(config: dict[str, Any]) -> Any:
    """The model's structure with untouched storage, to be bound to the flat vector."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    with no_init_weights():
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(**config), dtype=torch.float32, trust_remote_code=False
        )
    model.tie_weights()
    return model


build = LanguageTask
