"""The evaluation examples: which are kept apart to choose by, in which batches all are scored, and
a digest that tells whether two runs were scored on the same ones."""

from __future__ import annotations

import hashlib
import json

import numpy as np

from hiso_ray.config import TaskConfig
from hiso_ray.tasks.contract import Prepared


def check(config: TaskConfig, examples: int) -> None:
    """
    Raises:
        ValueError: the validation examples leave nothing for the test.
    """
    if config.validation_examples and config.validation_examples >= examples:
        raise ValueError(
            f"task.validation_examples = {config.validation_examples}: there are {examples} "
            f"evaluation examples, so that none is left for the test; give {examples - 1} at most"
        )


def batches(config: TaskConfig, examples: int) -> list[range]:
    """Batches of consecutive examples; the last of the validation examples and the last of the test
    are as short as they are.

    Args:
        examples: how many there are of both.
    """
    size, chosen_by = config.eval_batch_size, config.validation_examples
    parts = range(chosen_by), range(chosen_by, examples)
    return [part[i : i + size] for part in parts for i in range(0, len(part), size)]


def digest(prepared: Prepared) -> str:
    """SHA-256 over the evaluation examples as the model reads and is scored on them: token ids or
    images, labels, references.

    A task that keeps no such examples is scored on all that it has (the quadratic).
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
