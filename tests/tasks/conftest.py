"""Language tasks on random models, fed with sequences of every length."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_models import LONGEST, MODELS, give, rows, save, shuffled_lengths

from hiso_ray import Experiment, tasks
from hiso_ray.tasks.contract import Prepared
from hiso_ray.tasks.forward.forwards import Form, chosen

Random = Callable[..., tuple[Any, Prepared, torch.Tensor]]


@pytest.fixture(scope="session")
def cases(shared: Path) -> Path:
    """Small files that were read as something else."""
    if not (shared / "cases").is_dir():
        pytest.skip("needs the small files of ../shared/cases, which are absent")
    return shared / "cases"


@pytest.fixture(scope="session")
def random_folder(tiny_opt: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A saved random model and the tiny OPT's tokenizer."""
    made: dict[str, Path] = {}

    def make(name: str, **more: Any) -> Path:
        key = f"{name} {more}"
        if key not in made:
            made[key] = save(name, tmp_path_factory.mktemp("model"), tiny_opt, **more)
        return made[key]

    return make


@pytest.fixture(scope="session")
def boats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Questions in squad's format."""
    folder = tmp_path_factory.mktemp("boats")
    row = {"title": "Boats", "context": "The red boat left.", "question": "What left?"}
    line = json.dumps(row | {"answers": {"text": ["the boat"], "answer_start": [0]}}) + "\n"
    for split in ("train", "validation"):
        (folder / f"{split}.jsonl").write_text(line * 40)
    return folder


@pytest.fixture
def random_task(
    language: Callable[..., Experiment], random_folder: Callable[..., Path], boats: Path
) -> Random:
    """A task on a random model: built, prepared, and weights where LoRA's are not zero.

    Its training examples have every length from 1 to ``LONGEST``, shuffled; in generation, answers
    of 1 to 5 tokens come after them. ``form`` takes the place of the model's own.
    """

    def make(
        name: str, kind: str = "classification", form: Form | None = None, **dotted: Any
    ) -> tuple[Any, Prepared, torch.Tensor]:
        base: dict[str, Any] = {"task.model": str(random_folder(name)), "task.max_length": 64}
        if kind == "generation":
            base |= {"task.name": "squad", "task.data": str(boats), "task.max_new_tokens": 5}
            base |= {"task.max_length": 60}
        experiment = tasks.resolve(language(**(base | dotted)))
        prepared = tasks.prepare(experiment)
        own = chosen(prepared.spec["forward"])
        assert name not in MODELS or own.form == ("packed" if name == "gpt2" else "scored"), own.why
        lengths = shuffled_lengths()
        give(prepared, "train_prompt", rows(lengths))
        prepared.arrays["train_labels"] = np.arange(len(lengths)) % 2
        if kind == "generation":
            answers = [1 + i % 5 for i in range(len(lengths))]
            give(prepared, "train_answer", rows(answers, seed=1))
        if form is not None:
            prepared.spec["forward"] = own._replace(form=form)
        x = torch.tensor(prepared.x0)
        x += 0.02 * torch.randn(len(x), generator=torch.Generator().manual_seed(2))
        task = tasks.build(experiment, prepared, torch.device("cpu"))
        return task, prepared, x.to(getattr(torch, experiment.task.dtype))

    assert LONGEST < 60
    return make
