"""Answers' rows of the head = all logits; and what a forward pass makes of a large vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from random_models import MODELS, Largest, give, random_model, rows
from torch import nn
from torch.utils import _pytree

from hiso_ray.tasks.forward import head
from hiso_ray.tasks.language import written

ROWS = torch.tensor([311, 7, 399, 0])
HUGE = 262_144
pytestmark = pytest.mark.usefixtures("one_thread")

Random = Callable[..., Any]


@pytest.mark.parametrize("name", MODELS)
@torch.inference_mode()
def test_some_rows_are_those_of_all_logits(name: str) -> None:
    # Biases (phi), capping (gemma2, gemma3), scales (cohere, granite), projections (opt).
    model = random_model(*MODELS[name])
    ids = torch.tensor([rows([9])[0]]).long()
    logits = model(input_ids=ids, use_cache=False).logits[0]
    hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state[0]
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    assert torch.allclose(head.logits(model, hidden), logits, rtol=1e-6, atol=1e-6)
    undo = head.keep_rows(model, ROWS)
    for some in (slice(None), slice(3, 4), slice(8, None)):
        found = head.logits(model, hidden[some])
        assert torch.allclose(found, logits[some][:, ROWS], rtol=1e-5, atol=1e-6)
    assert [name for name, _ in model.named_parameters(remove_duplicate=False)] == names
    undo()
    assert torch.equal(model(input_ids=ids, use_cache=False).logits[0], logits)


@torch.inference_mode()
def test_nothing_is_left_behind_by_a_forward_pass() -> None:
    # transformers registers every class of outputs with torch, for ever.
    model = random_model(*MODELS["llama"])
    hidden = torch.zeros(2, model.config.hidden_size)
    head.logits(model, hidden)
    before = len(_pytree.SUPPORTED_NODES)
    for _ in range(3):
        head.logits(model, hidden)
    assert len(_pytree.SUPPORTED_NODES) == before


def test_a_bias_counts_row_by_row() -> None:
    model = random_model(*MODELS["phi"])
    assert model.lm_head.bias.abs().min() > 0
    head.keep_rows(model, ROWS)
    hidden = torch.zeros(2, 16)
    with torch.inference_mode():
        assert torch.equal(head.logits(model, hidden), model.lm_head.bias[ROWS].expand(2, -1))


def test_a_head_that_is_no_linear_layer_is_said() -> None:
    class Own(nn.Linear):
        pass

    model = random_model(*MODELS["llama, untied"])
    model.lm_head = Own(16, 400)
    with pytest.raises(ValueError, match="its head is no linear layer"):
        head.keep_rows(model, ROWS)
    model = random_model(*MODELS["llama, untied"])
    model.twice = model.lm_head
    with pytest.raises(ValueError, match="stands in no one place"):
        head.keep_rows(model, ROWS)


# what is allocated


def huge(random_task: Random, random_folder: Any, kind: str, **dotted: Any) -> Any:
    small = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8, "head_dim": 4}
    folder = random_folder("gemma3, window last", vocab_size=HUGE, **small)
    task, prepared, x = random_task(
        "gemma3, window last", kind, **{"task.model": str(folder), **dotted}
    )
    give(prepared, "eval_prompt", rows([5, 9, 30, 1] * 10))
    return task, x


def most(do: Callable[[], Any]) -> int:
    """Elements of the largest tensor made."""
    do()  # what is made once is made
    with Largest() as made:
        do()
    return made.elements


@pytest.mark.parametrize("lora", [{}, {"task.lora.r": 2}], ids=["full", "lora"])
def test_classification_makes_nothing_of_the_vocabularys_size(
    random_task: Random, random_folder: Any, lora: dict[str, Any]
) -> None:
    task, x = huge(random_task, random_folder, "classification", **lora)
    batch = task.batch(np.arange(16), np.arange(16, 30))
    z = torch.ones_like(x)
    assert most(lambda: task.losses(x, [batch])) < HUGE // 8
    assert most(lambda: task.score(x, 0)) < HUGE // 8
    if lora:  # otherwise x itself has vocabulary × hidden elements
        assert most(lambda: task.slopes(x, z, [batch])) < HUGE // 8
        assert most(lambda: task.gradient(x, task.batch(np.arange(16)))) < HUGE // 8


def test_generation_makes_a_bounded_number_of_logits_at_once(
    random_task: Random, random_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, x = huge(random_task, random_folder, "generation", **{"task.eval_batch_size": 8})
    few, many = (task.batch(np.arange(n)) for n in (4, 34))
    assert len(many.labels) > 5 * len(few.labels)
    monkeypatch.setattr(written, "LOGITS", 2 * HUGE)
    wanted = task.losses(x, [many])
    for batch in (few, many):
        assert most(lambda batch=batch: task.losses(x, [batch])) == 2 * HUGE
    monkeypatch.setattr(written, "LOGITS", 1)  # one at a time at least
    assert most(lambda: task.losses(x, [many])) == HUGE
    assert task.losses(x, [many]) == pytest.approx(wanted, rel=1e-6)
    # Greedy decoding has the logits of one position of each prompt.
    assert most(lambda: task.score(x, 0)) <= 8 * HUGE
