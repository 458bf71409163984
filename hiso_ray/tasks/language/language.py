"""Prepares the language tasks: tokenizes a benchmark's examples and divides a model's weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from hiso_ray.config import Experiment, TaskConfig
from hiso_ray.errors import UserError
from hiso_ray.tasks import evaluation
from hiso_ray.tasks.contract import Count, Prepared
from hiso_ray.tasks.flat.batch import Batch
from hiso_ray.tasks.flat.module import reached_parameters
from hiso_ray.tasks.forward import forwards, frozen_layers
from hiso_ray.tasks.language import first_prompts, generation, passages
from hiso_ray.tasks.language.causal import LanguageTask
from hiso_ray.tasks.language.classification import ClassificationTask, answer_tokens
from hiso_ray.tasks.language.written import WrittenTask
from hiso_ray.tasks.pretrained import pretrained, trainable
from hiso_ray.tasks.pretrained.trainable import Trainable, add_lora, select
from hiso_ray.tasks.text.benchmark_row import Classification
from hiso_ray.tasks.text.examples import read
from hiso_ray.tasks.text.groups import column_of, groups_of
from hiso_ray.tasks.text.own_prompt import benchmark_of
from hiso_ray.tasks.text.own_values import lengths_of
from hiso_ray.tasks.text.tokens import Tokens, tokenize

TRIED = 64  # prompts to try before the loss counts as not reaching a parameter


def prepare(experiment: Experiment) -> Prepared:
    """Reads data and model, and divides the model's weights into trained and frozen.

    Raises:
        UserError: the data, the model, the verbalizers or the trainable subset do not fit.
    """
    config, benchmark = experiment.task, benchmark_of(experiment.task)
    by = experiment.federation.by
    train, held, notes = read(benchmark, config, experiment.seed, column_of(by))
    evaluation.check(config, len(held))
    # With LoRA the model's own weights are not trained, so they need no float32.
    read_in = config.dtype if config.lora.r else "float32"
    model, tokenizer, about = pretrained.load(config.model, getattr(torch, read_in))
    structure = pretrained.structure_of(model.config)
    limit, answer_budget = lengths_of(config)
    arrays: dict[str, np.ndarray] = {}
    cut = 0
    for split, examples in (("train", train), ("eval", held)):
        prompts = tokenize(examples.prompts, examples.contexts, tokenizer, limit)
        _check_positions(int(prompts.lengths().max()) + answer_budget, structure, config)
        cut += int(prompts.cut.sum())
        arrays |= _named(f"{split}_prompt", prompts) | {f"{split}_labels": examples.labels}
    spec: dict[str, Any] = {"model": structure}
    if isinstance(benchmark, Classification):
        spec["answers"] = answer_tokens(benchmark, tokenizer, config.model)
        answers = ", ".join(repr(tokenizer.decode([t])) for t in spec["answers"])
    else:
        written, longer = generation.answers(benchmark, train, held, tokenizer, answer_budget)
        arrays |= written
        spec["evaluation"] = generation.decoding(benchmark, held, tokenizer)
        answers = f"of up to {answer_budget} tokens ({longer:.1%} are longer)"
    used = [array for name, array in arrays.items() if name.endswith("_ids")]
    pretrained.check_tokens(
        np.concatenate([*used, spec.get("answers", [])]), model, tokenizer, config.model
    )
    if config.lora.r:
        spec["lora"] = config.lora.model_dump() | {"target_modules": add_lora(model, config.lora)}
    some = np.split(arrays["train_prompt_ids"], arrays["train_prompt_offsets"][1:-1])
    rows = torch.tensor(spec["answers"]) if "answers" in spec else None
    spec["forward"] = forwards.choose(model, some, rows)
    of_token, layers = trainable.activation(model)
    lengths = _lengths(arrays)
    longest = int(np.ceil(np.sort(np.concatenate(lengths))[-config.eval_batch_size :].mean()))
    model.requires_grad_(True)
    chosen = select(model, reached(model, some), config, experiment.seed)
    spec |= {"layout": chosen.layout, "dense": chosen.layout}
    if config.frozen_layers != "recompute":
        trained, how = {name for name, _ in chosen.layout}, config.frozen_layers
        frozen = frozen_layers.choose(model, spec["forward"], some, rows, trained, how)
        spec["frozen_layers"] = frozen
        itemsize = getattr(torch, config.dtype).itemsize
        budget = experiment.resources.frozen_states_mb
        notes += (frozen_layers.note(model, frozen, how, lengths, itemsize, budget),)
    classes = benchmark.names if isinstance(benchmark, Classification) else ("all",)
    labels, names = groups_of(by, train, classes, np.diff(arrays["train_prompt_offsets"]))
    total = len(train) + len(held)
    return Prepared(
        spec=spec,
        arrays=arrays | chosen.arrays,
        x0=chosen.x0,
        labels=labels,
        label_names=names,
        frozen=chosen.frozen,
        activation=of_token * longest,
        layers=layers,
        classes="train_labels" if "answers" in spec else "",
        num_classes=len(spec.get("answers", ())),
        notes=(
            *about,
            *notes,
            f"{config.name}: {len(train)} training and {len(held)} evaluation prompts, "
            f"answers {answers}; {cut / total:.1%} longer than {limit} tokens, their "
            f"{benchmark.context} truncated on the left",
            *_about(spec, chosen),
        ),
    )


def count(config: TaskConfig) -> Count:
    """How many weights there are, without loading any."""
    with torch.device("meta"):
        model = pretrained.skeleton(pretrained.configuration(config.model))
        if config.lora.r:
            add_lora(model, config.lora)
    return trainable.count(model, config)


def _about(spec: dict[str, Any], chosen: Trainable) -> tuple[str, ...]:
    form = spec["forward"]
    notes = chosen.notes
    if form.why:
        how = "padded" if form.form == "padded" else "evaluated one at a time, which is slow"
        notes += (f"sequences are {how}: end to end, this model fails ({form.why})",)
    if "lora" not in spec:
        return notes
    lora = spec["lora"]
    layers = lora["target_modules"].split(",")
    names = ", ".join(sorted({layer.rpartition(".")[2] for layer in layers}))
    return (
        *notes,
        f"LoRA: rank {lora['r']}, alpha {lora['alpha']} on {len(layers)} layers ({names})",
    )


def _lengths(arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Input tokens of each example, per split: the prompt, and all but the last of an answer."""
    found = []
    for split in ("train", "eval"):
        lengths = np.diff(arrays[f"{split}_prompt_offsets"])
        if f"{split}_answer_offsets" in arrays:
            lengths = lengths + np.maximum(0, np.diff(arrays[f"{split}_answer_offsets"]) - 1)
        found.append(lengths)
    return found


def _named(prefix: str, tokens: Tokens) -> dict[str, np.ndarray]:
    return {f"{prefix}_ids": tokens.ids, f"{prefix}_offsets": tokens.offsets}


def _check_positions(longest: int, structure: dict[str, Any], config: TaskConfig) -> None:
    limit = pretrained.positions(structure)
    if limit is not None and longest > limit:
        raise UserError(
            f"task.max_length = {config.max_length}: the longest sequence has {longest} tokens, "
            f"the model reads at most {limit}; lower max_length"
        )


def reached(model: Any, prompts: Sequence[np.ndarray]) -> set[int]:
    """Ids of the parameters that the loss of any of the first prompts depends on; several are
    tried because a single prompt may use only some experts of a mixture."""
    wanted = {id(p) for p in model.parameters() if p.requires_grad}
    found: set[int] = set()
    for ids in prompts[:TRIED]:
        tokens = torch.from_numpy(ids.astype(np.int64))[None]
        with torch.enable_grad():
            logits = model(input_ids=tokens, logits_to_keep=1, use_cache=False).logits
            found |= reached_parameters(logits.sum())
        if wanted <= found:
            break
    return found


def build(config: TaskConfig, prepared: Prepared, device: torch.device) -> LanguageTask:
    kind = ClassificationTask if "answers" in prepared.spec else generation.GenerationTask
    return kind(config, prepared, device)


def preview(experiment: Experiment) -> tuple[str, ...]:
    """See ``first_prompts``."""
    return first_prompts.lines(experiment)


def plain_text(config: TaskConfig, prepared: Prepared) -> tuple[WrittenTask, Iterator[Batch]]:
    """See ``passages``."""
    return passages.read(config, prepared)
