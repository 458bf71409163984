"""The last layer for the tokens that are scored: found by watching, and gone without a trace."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from random_models import MODELS, random_model, rows
from torch import Tensor, nn

from hiso_ray.tasks.forward import attention, last_layer, packing
from hiso_ray.tasks.forward.last_layer import LastLayer

FOUND = {
    "opt": LastLayer("model.decoder.layers.1", "self_attn_layer_norm", "self_attn"),
    "opt, norms after": LastLayer("model.decoder.layers.1", "", "self_attn"),
    "llama": LastLayer("model.layers.1", "input_layernorm", "self_attn"),
    "olmo2": LastLayer("model.layers.1", "", "self_attn"),
    "phi": LastLayer("model.layers.1", "input_layernorm", "self_attn"),  # attention beside the rest
    "gpt_neox": LastLayer("gpt_neox.layers.1", "input_layernorm", "attention"),
}
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", FOUND)
@pytest.mark.parametrize("scored", ["ends", "several"])
@torch.inference_mode()
def test_it_is_found_and_gives_the_scored_tokens_alone(name: str, scored: str) -> None:
    model = random_model(*MODELS[name])
    attention.install(model)
    counts = np.ones(4, np.int64) if scored == "ends" else np.array([2, 1, 3, 1])
    inputs: Any = packing.packed(rows([5, 1, 9, 5]), counts, torch.device("cpu"))

    def hidden() -> Tensor:
        return model.get_decoder()(**inputs, use_cache=False).last_hidden_state[0]

    everything = hidden()
    found = last_layer.find(model, hidden)
    assert found == FOUND[name]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    handles = last_layer.trim(model, found)
    fed: list[int] = []
    layer = model.get_submodule(found.layer)
    outside = [m for n, m in layer.named_modules() if not n.startswith(found.attention)]
    widest = max(outside, key=lambda m: getattr(m, "out_features", 0))  # feed-forward
    handles.append(widest.register_forward_pre_hook(lambda _, args: fed.append(args[0].numel())))
    wanted = everything[inputs["packing"].scored]
    assert torch.allclose(hidden(), wanted, atol=1e-5)
    assert fed == [counts.sum() * 16]
    for handle in handles:
        handle.remove()
    assert torch.equal(hidden(), everything)


class Block(nn.Module):
    """A layer of a kind that is none: ``twice`` runs its attention again, ``plain`` has none."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.norm, self.other, self.attention = how, nn.Identity(), nn.Identity(), Pair()

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "plain":
            return self.norm(x)
        if self.how == "two norms":
            return self.attention(self.other(self.norm(x)))[0]
        x = self.attention(x * 2 if self.how == "scaled" else x)[0]
        return self.attention(x)[0] if self.how == "twice" else x


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return x + 1, None


@pytest.mark.parametrize("how", ["twice", "plain", "two norms", "scaled"])
def test_what_is_not_built_so_is_left_alone(how: str) -> None:
    model = nn.Module()
    model.layers = nn.ModuleList([Block(how)])
    assert last_layer.find(model, lambda: model.layers[0](torch.ones(2))) is None
    model.others = nn.ModuleList([Block("once")])  # which list is the last?
    assert last_layer.find(model, lambda: model.others[0](torch.ones(2))) is None


def test_it_is_found_in_a_module_that_is_built_so() -> None:
    model = nn.Module()
    model.layers = nn.ModuleList([Block("twice"), Block("once")])
    assert last_layer.find(model, lambda: model.layers[1](torch.ones(2))) == LastLayer(
        "layers.1", "", "attention"
    )
