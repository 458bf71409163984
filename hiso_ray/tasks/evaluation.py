"""Evaluation examples: the validation part, the batches, the overlap with the training examples,
and a digest that tells whether two runs were scored on the same examples."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import numpy as np

from hiso_ray.config import TaskConfig
from hiso_ray.errors import UserError
from hiso_ray.tasks.contract import Prepared


def check(config: TaskConfig, examples: int) -> None:
    """
    Raises:
        UserError: the validation examples leave nothing for the test.
    """
    if config.validation_examples and config.validation_examples >= examples:
        raise UserError(
            f"task.validation_examples = {config.validation_examples}: there are {examples} "
            f"evaluation examples, so that none is left for the test; give {examples - 1} at most"
        )


def batches(config: TaskConfig, examples: int) -> list[range]:
    """Batches of consecutive examples. Validation and test examples are batched separately; the
    last batch of each may be shorter.

    Args:
        examples: number of validation and test examples together.
    """
    size, chosen_by = config.eval_batch_size, config.validation_examples
    parts = range(chosen_by), range(chosen_by, examples)
    return [part[i : i + size] for part in parts for i in range(0, len(part), size)]


def seen(config: TaskConfig, prepared: Prepared) -> tuple[str, ...]:
    """A line that says how many evaluation examples are also training examples, compared by prompt
    or image; nothing if none are.

    Raises:
        UserError: all of them are.
    """
    held = list(_read(prepared, "eval"))
    wanted = set(held)
    trained = {row for row in _read(prepared, "train") if row in wanted}
    count = sum(row in trained for row in held)
    if count and count == len(held):
        cut = ""
        if "eval_prompt_ids" in prepared.arrays:
            cut = f", or raise task.max_length = {config.max_length} if it cuts off how they differ"
        raise UserError(
            f"task.data = {config.data}: all {count} evaluation examples are training examples "
            "too, so that no score would be of anything new; give an evaluation split of its "
            f"own{cut}"
        )
    if not count:
        return ()
    share = f"{count} of {len(held)} evaluation examples ({count / len(held):.1%})"
    return (f"{share} are training examples too: scores on them are not of anything new",)


def _read(prepared: Prepared, split: str) -> Iterator[bytes]:
    """The model's input for each example of a split; nothing for tasks without such inputs."""
    arrays = prepared.arrays
    if f"{split}_x" in arrays:
        yield from (image.tobytes() for image in arrays[f"{split}_x"])
    elif f"{split}_prompt_ids" in arrays:
        ids, offsets = arrays[f"{split}_prompt_ids"], arrays[f"{split}_prompt_offsets"]
        yield from (prompt.tobytes() for prompt in np.split(ids, offsets[1:-1]))


def digest(prepared: Prepared) -> str:
    """SHA-256 over the evaluation examples: token ids or images, labels, references.

    For a task without such examples (the quadratic), over all its arrays.
    """
    arrays = {name: a for name, a in prepared.arrays.items() if name.startswith("eval_")}
    arrays.pop("eval_tokenizer", None)
    sha = hashlib.sha256()
    for name, array in sorted((arrays or prepared.arrays).items()):
        sha.update(f"{name} {array.dtype.str} {array.shape}".encode())
        sha.update(np.ascontiguousarray(array).data)
    references = prepared.spec.get("evaluation", {}).get("references", [])
    sha.update(json.dumps(references).encode())
    return sha.hexdigest()
