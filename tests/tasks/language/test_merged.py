"""Adapters folded into their base model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from random_models import rows


@pytest.mark.parametrize("targets", ["auto", "all-linear", "q_proj,lm_head"])
@pytest.mark.parametrize("name", ["llama", "llama, untied"])
def test_a_merged_model_is_the_adapter_on_its_base(
    random_task: Callable[..., Any], tmp_path: Path, name: str, targets: str
) -> None:
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM

    lora = {"task.lora.r": 2, "task.lora.target_modules": targets}
    task, _, x = random_task(name, **lora)
    x += 0.1
    task.export(x, tmp_path / "adapter")
    task.export(x, tmp_path / "merged", merge=True)
    assert not list((tmp_path / "merged").glob("adapter*"))
    adapter = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter").eval()
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    assert not [name for name, _ in merged.named_parameters() if "lora" in name]
    (ids,) = rows([12])
    with torch.inference_mode():
        given = torch.tensor(ids[None]).long()
        wanted, found = (model(input_ids=given).logits for model in (adapter, merged))
        with adapter.disable_adapter():
            base = adapter(input_ids=given).logits
    assert (wanted - base).abs().max() > 0.1
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))
