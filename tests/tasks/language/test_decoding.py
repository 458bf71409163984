"""Greedy answers, prompts read end to end, are those of ``generate`` on single prompts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from random_models import MODELS, PADDED, WINDOW, random_model, rows

from hiso_ray.tasks.forward.forwards import Choice, Forward, choose
from hiso_ray.tasks.language.decoding import greedy

LENGTHS = (9, 1, 4, 30, 4, WINDOW, 2)
pytestmark = pytest.mark.usefixtures("one_thread")


def singly(model: Any, most: int) -> list[list[int]]:
    found = []
    for ids in rows(LENGTHS):
        given = torch.tensor(ids[None]).long()
        written = model.generate(
            given, attention_mask=torch.ones_like(given), max_new_tokens=most, do_sample=False,
            eos_token_id=None, pad_token_id=0,
        )  # fmt: skip
        found.append(written[0, len(ids) :].tolist())
    return found


@pytest.mark.parametrize("name", [*MODELS, "bloom", "lfm2", "bamba"])
@torch.inference_mode()
def test_answers_are_those_of_single_prompts(name: str) -> None:
    model = random_model(*(MODELS | PADDED)[name])
    model.generation_config.eos_token_id = None
    most = WINDOW + 4  # windows move past the prompt
    wanted = singly(model, most)
    assert len({token for row in wanted for token in row}) > 4  # no one token over and over
    forward = Forward(model, choose(model, rows(LENGTHS), None), torch.device("cpu"), None)
    assert forward.is_packed == (name in MODELS)
    assert greedy(forward, rows(LENGTHS), most, []) == wanted
    assert greedy(forward, rows(LENGTHS)[1:2], most, []) == wanted[1:2]  # one of one token
    assert greedy(forward, rows(LENGTHS)[3:4], most, []) == wanted[3:4]
    # What comes after reads end to end again.
    assert greedy(forward, rows(LENGTHS), most, []) == wanted


@torch.inference_mode()
def test_a_stop_ends_an_answer() -> None:
    model = random_model(*MODELS["llama"])
    model.generation_config.eos_token_id = None
    wanted = singly(model, 8)
    stop = wanted[0][3]
    forward = Forward(model, Choice("packed"), torch.device("cpu"), None)
    found = greedy(forward, rows(LENGTHS), 8, [stop])
    for row, whole in zip(found, wanted, strict=True):
        end = whole.index(stop) + 1 if stop in whole else 8
        assert row[:end] == whole[:end]
        assert set(row[end:]) <= {stop}  # padding
